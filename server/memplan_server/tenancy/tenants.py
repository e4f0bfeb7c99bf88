"""The file of tenants.

[team-a]
tokens = [{ sha256 = "64 hex digits", expires = 2027-01-01T00:00:00Z }]
requests_per_minute = 600
concurrent_requests = 16
measuring_seconds_per_hour = 600        # 0: may not measure

It holds no token, only what SHA-256 makes of each: tokens are random and long, so that is enough.
What is not limited is not in the file. The file is read again when it changes; one that is wrong
then changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memplan.files import WatchedFiles
from memplan_server.errors import Unauthenticated

__all__ = ["LIMITS", "NAME", "Tenant", "Tenants", "TenantsError", "Token"]

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
MOST_TENANTS = 1_000
"""Each has metrics of its own, and each token is looked at for each call."""
MOST_TOKENS = 10
LIMITS: Mapping[str, tuple[int, int]] = {
    "requests_per_minute": (1, 100_000),
    "concurrent_requests": (1, 10_000),
    "measuring_seconds_per_hour": (0, 1_000_000),
}
"""The least and the most of each limit."""


class TenantsError(ValueError):
    """The file of tenants is wrong, named with what is wrong in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One of a tenant's tokens, of which there are several while one is replaced."""

    sha256: bytes
    expires: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """Who asks, and how much it may; None: as much as it likes."""

    name: str
    tokens: tuple[Token, ...] = ()
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    measuring_seconds_per_hour: int | None = None


class Tenants:
    """The tenants of a file. Safe to use from several threads."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises OSError for a file that cannot be read and TenantsError for one that is wrong."""
        self._path = path
        self._now = now
        self._files = WatchedFiles(path)
        self._lock = threading.Lock()
        self._by_name = self._read()

    def of_token(self, token: str) -> Tenant:
        """Whose it is. Raises Unauthenticated."""
        digest = hashlib.sha256(token.encode()).digest()
        found: tuple[Tenant, Token] | None = None
        for tenant in self._current().values():
            for known in tenant.tokens:  # all of them: the time it takes tells nothing
                if hmac.compare_digest(known.sha256, digest):
                    found = tenant, known
        if found is None:
            raise Unauthenticated(
                "The token is none that this server knows. Ask whoever runs it for another.",
                "UNKNOWN_TOKEN",
            )
        tenant, known = found
        if known.expires is not None and self._now() >= known.expires:
            raise Unauthenticated(
                f"The token of {tenant.name} expired at {known.expires:%Y-%m-%d %H:%M} UTC. "
                "Ask whoever runs the server for another.",
                "TOKEN_EXPIRED",
            )
        return tenant

    def named(self, name: str) -> Tenant | None:
        """The tenant of that name, if there still is one."""
        return self._current().get(name)

    def _current(self) -> Mapping[str, Tenant]:
        with self._lock:
            if self._files.changed():
                try:
                    self._by_name = self._read()
                    log.info("%s has changed: %d tenants", self._path, len(self._by_name))
                except (OSError, TenantsError) as error:
                    log.error("tenants stay as they were: %s", error)
            return self._by_name

    def _read(self) -> Mapping[str, Tenant]:
        (data,) = self._files.read()
        assert data is not None
        try:
            return _parse(data.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TenantsError(f"{self._path} is no TOML: {error}") from error
        except TenantsError as error:
            raise TenantsError(f"{self._path}: {error}") from None


def _parse(text: str) -> Mapping[str, Tenant]:
    found = {name: _tenant(name, entry) for name, entry in tomllib.loads(text).items()}
    if len(found) > MOST_TENANTS:
        raise TenantsError(f"{len(found):,} tenants are more than {MOST_TENANTS:,}")
    owners: dict[bytes, str] = {}
    for name, tenant in found.items():
        for token in tenant.tokens:
            if owners.setdefault(token.sha256, name) != name:
                raise TenantsError(f"{owners[token.sha256]} and {name} have the same token")
    return found


def _tenant(name: str, entry: Any) -> Tenant:
    if not NAME.fullmatch(name):
        raise TenantsError(
            f"{name!r} is no name: up to 63 of a-z, 0-9 and -, not at the beginning or end"
        )
    known = [field.name for field in fields(Tenant) if field.name != "name"]
    if not isinstance(entry, dict):
        raise TenantsError(f"{name} is no table: write [{name}]")
    if unknown := set(entry) - set(known):
        raise TenantsError(f"[{name}] has an unknown {min(unknown)!r}; one of {', '.join(known)}")
    tokens = entry.get("tokens", [])
    if not isinstance(tokens, list) or len(tokens) > MOST_TOKENS:
        raise TenantsError(f"[{name}] tokens is no list of up to {MOST_TOKENS}")
    limits = {key: _limit(name, key, entry[key]) for key in LIMITS if key in entry}
    return Tenant(name=name, tokens=tuple(_token(name, token) for token in tokens), **limits)


def _limit(name: str, key: str, value: Any) -> int:
    least, most = LIMITS[key]
    if type(value) is not int or not least <= value <= most:
        raise TenantsError(f"[{name}] {key} is {value!r}, not a number from {least} to {most:,}")
    return value


def _token(name: str, entry: Any) -> Token:
    if not isinstance(entry, dict) or set(entry) - {"sha256", "expires"}:
        raise TenantsError(f'[{name}] has a token that is not {{ sha256 = "..." }}')
    digest, expires = entry.get("sha256"), entry.get("expires")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise TenantsError(f"[{name}] has a token whose sha256 is not 64 hexadecimal digits")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise TenantsError(
            f"[{name}] has a token whose expires is no time like 2027-01-01T00:00:00Z"
        )
    return Token(
        sha256=bytes.fromhex(digest), expires=None if expires is None else expires.astimezone(UTC)
    )
