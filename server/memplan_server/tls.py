"""TLS from files that may change while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from memplan_server.settings import Settings

__all__ = ["server_credentials"]


def server_credentials(settings: Settings) -> Any:
    """grpc.ServerCredentials of the files in `settings`, or None where they name none.

    The files are read again for a new connection after one of them has changed, so certificates can
    be renewed under a running server. Raises OSError when they cannot be read at first.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = _Files(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.configuration(),
        lambda: files.configuration() if files.changed() else None,
        require_client_authentication=settings.tls_client_ca is not None,
    )


class _Files:
    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._seen: tuple[int, ...] = ()

    def configuration(self) -> Any:
        """What the files say now."""
        self._seen = self._times()
        authorities = None if self._client_ca is None else self._client_ca.read_bytes()
        pair = (self._key.read_bytes(), self._cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)

    def changed(self) -> bool:
        """Whether a file was written since they were read; one that is gone is as it was."""
        try:
            return self._times() != self._seen
        except OSError:
            return False

    def _times(self) -> tuple[int, ...]:
        paths = (self._cert, self._key, self._client_ca)
        return tuple(path.stat().st_mtime_ns for path in paths if path is not None)
