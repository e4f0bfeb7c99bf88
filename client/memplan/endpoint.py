"""Where a server is and how it is spoken to: the settings that all who ask it share.

    Endpoint.of("planner:50051", tls=True, token_file="token")
    Endpoint.of(None)               # all from the environment

Without a target everything that is not given comes from the environment; with one nothing does, so
that a token goes to the server that it is for. No gRPC here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["DEFAULT_TARGET", "MOST_RETRIES", "VARIABLES", "Endpoint"]

DEFAULT_TARGET = "localhost:50051"
MOST_RETRIES = 4
"""gRPC makes at most five attempts."""
LEAST_KEEPALIVE_S = 10.0
"""Servers take more frequent pings for an attack."""
VARIABLES = {
    "target": "MEMPLAN_SERVER",
    "retries": "MEMPLAN_CLIENT_RETRIES",
    "tls": "MEMPLAN_CLIENT_TLS",
    "root_certificates": "MEMPLAN_CLIENT_CA",
    "client_certificate": "MEMPLAN_CLIENT_CERT",
    "client_key": "MEMPLAN_CLIENT_KEY",
    "server_name": "MEMPLAN_CLIENT_SERVER_NAME",
    "token_file": "MEMPLAN_TOKEN_FILE",
    "plaintext_token": "MEMPLAN_CLIENT_PLAINTEXT_TOKEN",
    "keepalive": "MEMPLAN_CLIENT_KEEPALIVE",
}
"""The environment variable of each field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A server, or several that are alike."""

    target: str = DEFAULT_TARGET
    """host:port, several with commas between them, or any gRPC target."""
    retries: int = 3
    """How often a call is tried again while no server can be reached, 0 to 4."""
    tls: bool = False
    """Encrypt; implied by the three files."""
    root_certificates: str | Path | None = None
    """Authorities to trust, PEM. Default: the system's."""
    client_certificate: str | Path | None = None
    """What the client shows, PEM."""
    client_key: str | Path | None = None
    """Key of it, PEM."""
    server_name: str = ""
    """Name that the server's certificate must have. Default: the target's first host."""
    token_file: str | Path | None = None
    """File with a token that says who asks."""
    plaintext_token: bool = False
    """Send the token also where this client does not encrypt, because something else does."""
    keepalive: float | None = None
    """Seconds of silence after which a server is asked whether it is there; None: never."""

    def __post_init__(self) -> None:
        _check_target(self.target)
        if not 0 <= self.retries <= MOST_RETRIES:
            raise ValueError(f"retries must be 0 to {MOST_RETRIES}, not {self.retries}")
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key belong together")
        if self.keepalive is not None and not LEAST_KEEPALIVE_S <= self.keepalive < math.inf:
            raise ValueError(
                f"keepalive must be at least {LEAST_KEEPALIVE_S:.0f} seconds, not {self.keepalive}"
            )
        if self.server_name and not self.encrypted:
            raise ValueError("server_name is about a certificate, and needs tls")
        if self.token_file is not None and not (self.encrypted or self.plaintext_token):
            raise ValueError(
                "token_file needs tls: others could read the token. Where something else encrypts "
                "(a service mesh, a proxy on this machine), set plaintext_token"
            )

    @property
    def encrypted(self) -> bool:
        """Whether the connection is."""
        files = (self.root_certificates, self.client_certificate, self.client_key)
        return self.tls or any(file is not None for file in files)

    @classmethod
    def of(
        cls, target: str | None, environment: Mapping[str, str] | None = None, **given: Any
    ) -> Endpoint:
        """From what is given (None: not) and, without a target, from the environment.

        Raises ValueError for settings that cannot be, named as they are called here or by their
        variable.
        """
        values: dict[str, Any] = {}
        if target is None:
            values = _from_environment(os.environ if environment is None else environment)
        else:
            values["target"] = target
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)


def _check_target(target: str) -> None:
    """Raise ValueError for what gRPC would take for something else: a URL, a port beyond 65535."""
    scheme, _, rest = target.partition("://")
    if rest and scheme.lower() in ("http", "https", "grpc", "grpcs"):
        and_tls = " and tls" if scheme.lower() in ("https", "grpcs") else ""
        address = rest.strip("/")
        raise ValueError(f"{target!r} is a URL: give host:port{and_tls}, such as {address}")
    if target.startswith(("dns:", "unix:", "ipv4:", "ipv6:", "xds:", "unix-abstract:", "vsock:")):
        return
    for server in target.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
            raise ValueError(f"{server.strip()!r} is not host:port, such as {DEFAULT_TARGET}")


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for spec in fields(Endpoint):
        variable = VARIABLES[spec.name]
        text = environment.get(variable)
        if not text:
            continue
        try:
            values[spec.name] = _PARSERS.get(spec.name, str)(text)
        except ValueError as error:
            raise ValueError(f"{variable}: {text!r} {error}") from None
    return values


def _truth(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
        raise ValueError("is neither true nor false")
    return text.lower() in ("1", "true", "yes")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("is not a number of seconds") from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("is not a whole number")
    return int(text)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "retries": _count,
    "tls": _truth,
    "plaintext_token": _truth,
    "keepalive": _number,
}
