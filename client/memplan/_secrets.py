"""What a client shows and trusts, from files that may be replaced while it runs.

What cannot be read or does not belong together is an error at first; later what was read before
stays in use, so that a file which is just being written costs no call.
"""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path
from typing import Any

import grpc

from memplan.files import WatchedFiles

__all__ = ["Certificates", "Token"]

log = logging.getLogger(__name__)

_LONGEST_TOKEN = 4096


class Token:
    """The bearer token in a file. Safe to use from several threads."""

    def __init__(self, path: str | Path) -> None:
        """Raises OSError and ValueError."""
        self._path = path
        self._files = WatchedFiles(path)
        self._lock = threading.Lock()
        self._metadata = self._read()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call; read again when the file has changed."""
        with self._lock:
            if self._files.changed():
                try:
                    self._metadata = self._read()
                except (OSError, ValueError) as error:
                    log.warning("the token stays as it was: %s", error)
            return self._metadata

    def _read(self) -> tuple[tuple[str, str], ...]:
        (data,) = self._files.read()
        assert data is not None
        token = data.decode("ascii", "replace").strip()
        if (
            not token
            or len(token) > _LONGEST_TOKEN
            or not all("!" <= sign <= "~" for sign in token)
        ):
            raise ValueError(f"{self._path} holds no token: one word of ASCII characters")
        return (("authorization", f"Bearer {token}"),)


class Certificates:
    """The PEM files of TLS. Not for several threads at once."""

    def __init__(
        self,
        root: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        """Raises OSError and ValueError."""
        self._paths = (root, certificate, key)
        self._files = WatchedFiles(*self._paths)
        self._read = self._checked()

    def renewed(self) -> bool:
        """Whether there are others than before, which belong together."""
        if not self._files.changed():
            return False
        before = self._read
        try:
            self._read = self._checked()
        except (OSError, ValueError) as error:
            log.warning("certificates stay as they were: %s", error)
        return self._read != before

    def credentials(self) -> Any:
        """grpc.ChannelCredentials of them."""
        root, certificate, key = self._read
        return grpc.ssl_channel_credentials(root, key, certificate)

    def _checked(self) -> tuple[bytes | None, ...]:
        found = self._files.read()
        root, certificate, key = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if root is not None:
                context.load_verify_locations(root)
            if certificate is not None and key is not None:
                context.load_cert_chain(certificate, key, password=lambda: b"")  # never a prompt
        except ssl.SSLError as error:
            raise ValueError(
                f"{self._named()} are no PEM files that go together: {error}"
            ) from None
        if self._files.changed():  # what was looked at may not be what was read
            raise ValueError(f"{self._named()} are being written")
        return found

    def _named(self) -> str:
        return ", ".join(str(path) for path in self._paths if path is not None)
