"""The gRPC channel of a client: balancing, health checks and retries, encrypted where wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from memplan.v1 import planner_pb2

__all__ = ["open_channel", "read_credentials"]

_SERVICE = planner_pb2.DESCRIPTOR.services_by_name["MemoryPlanner"].full_name
_LARGEST_ANSWER = 64 << 20


def open_channel(
    target: str, credentials: Any, retries: int, options: Sequence[tuple[str, Any]]
) -> Any:
    """A channel to `target`; without `credentials` it is not encrypted. Nothing is sent yet."""
    all_options = [*_options(retries), *options]
    if credentials is None:
        return grpc.insecure_channel(target, all_options)
    return grpc.secure_channel(target, credentials, all_options)


def read_credentials(
    root: str | Path | None, certificate: str | Path | None, key: str | Path | None
) -> Any:
    """Channel credentials of PEM files: authorities to trust, the client's certificate and its key.

    Raises ValueError for one of a pair without the other, OSError for files that cannot be read.
    """
    if (certificate is None) != (key is None):
        raise ValueError("client_certificate and client_key belong together")
    read = [None if path is None else Path(path).read_bytes() for path in (root, key, certificate)]
    return grpc.ssl_channel_credentials(*read)


def _options(retries: int) -> list[tuple[str, Any]]:
    """Channel options. The service config has no timeout: each call carries its own."""
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
    }
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 3,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": [{"service": _SERVICE}], "retryPolicy": policy}]
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.enable_retries", int(bool(retries))),
        ("grpc.max_receive_message_length", _LARGEST_ANSWER),
    ]
