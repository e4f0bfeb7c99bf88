"""The gRPC channel of a client: balancing, health checks and retries, encrypted where wanted."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

import grpc

from memplan._renewing import RenewingChannel
from memplan._secrets import Certificates, Token
from memplan.endpoint import Endpoint
from memplan.v1 import planner_pb2

__all__ = ["open_channel"]

_SERVICE = planner_pb2.DESCRIPTOR.services_by_name["MemoryPlanner"]
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "xds:")
_AWAY = ["UNAVAILABLE", "CANCELLED"]
"""What calls end with that no server worked on to the end. A server of gRPC that stops cancels
those that reach it too late; what this client cancels is not tried again."""
_LARGEST_ANSWER = 64 << 20
_RECONNECT_MS = 10_000
"""Longest wait before a server that was away is tried again."""
_RESOLVE_MS = 5_000
"""Least time between two look-ups of a name: how long a replaced pod may be missed."""
_PONG_MS = 10_000


def open_channel(endpoint: Endpoint, options: Sequence[tuple[str, Any]] = ()) -> Any:
    """A channel to `endpoint`, with further gRPC `options`. Nothing is sent yet.

    Raises OSError for files that cannot be read and for lists of names of which none is known, and
    ValueError for files that hold something else.
    """
    token = None if endpoint.token_file is None else Token(endpoint.token_file)
    target, first_host = _resolved(endpoint.target)
    all_options = [*_options(endpoint, endpoint.server_name or first_host), *options]
    if not endpoint.encrypted:
        channel = grpc.insecure_channel(target, all_options)
        return channel if token is None else RenewingChannel(lambda: channel, token)
    files = (endpoint.root_certificates, endpoint.client_certificate, endpoint.client_key)
    certificates = Certificates(*files)

    def opened() -> Any:
        return grpc.secure_channel(target, certificates.credentials(), all_options)

    return RenewingChannel(opened, token, certificates)


def _options(endpoint: Endpoint, name: str) -> list[tuple[str, Any]]:
    """Channel options for servers called `name`, if that is not the target's.

    The service config has no timeout: each call carries its own.
    """
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if _is_several(endpoint.target):
        config["healthCheckConfig"] = {"serviceName": ""}
    if endpoint.retries:
        config["methodConfig"] = [{"name": _repeatable(), "retryPolicy": _policy(endpoint.retries)}]
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.enable_retries", int(bool(endpoint.retries))),
        ("grpc.max_receive_message_length", _LARGEST_ANSWER),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        ("grpc.dns_min_time_between_resolutions_ms", _RESOLVE_MS),
    ]
    if name:
        options.append(("grpc.default_authority", name))
    if endpoint.keepalive is not None:
        options += [
            ("grpc.keepalive_time_ms", int(endpoint.keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", _PONG_MS),
            # gRPC also pings to measure the bandwidth: such a ping may not stand for a minute
            # where this one would, nor be counted against it.
            ("grpc.http2.ping_timeout_ms", _PONG_MS),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return options


def _is_several(target: str) -> bool:
    """Whether each address is a server whose health may be asked for.

    What is only host:port may be a proxy: it would pass the question on to one of its servers, and
    all calls would stop when that one drains.
    """
    return "," in target or target.startswith(_SCHEMES)


def _repeatable() -> list[dict[str, str]]:
    """The methods that may be called twice for once: all but the one that runs a job for each."""
    return [
        {"service": _SERVICE.full_name, "method": method.name}
        for method in _SERVICE.methods
        if not method.server_streaming
    ]


def _policy(retries: int) -> dict[str, Any]:
    return {
        "maxAttempts": retries + 1,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": _AWAY,
    }


def _resolved(target: str) -> tuple[str, str]:
    """A target for gRPC, which takes no list of names, and the first name of such a list.

    What has a scheme (`dns:///name:50051`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`) is as it is.
    """
    if "," not in target or target.startswith(_SCHEMES):
        return target, ""
    hosts = [_host_and_port(part.strip()) for part in target.split(",")]
    found: dict[int, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
    for host, port in hosts:
        for family, address in _addresses(host, port):
            found[family].append(address)
    for family, scheme in ((socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6")):
        if found[family]:
            return f"{scheme}:{','.join(dict.fromkeys(found[family]))}", hosts[0][0]
    raise OSError(f"none of {target} is a name that is known")


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{text!r} in a list of servers is not host:port")
    return host.strip("[]"), int(port)


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    """Of one name; none for one that is not known now, as the others may do without it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return [
        (family, f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}")
        for family, _, _, _, address in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
