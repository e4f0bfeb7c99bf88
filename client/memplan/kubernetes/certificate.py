"""TLS files that may be renewed while the server runs.

A volume of a Secret is renewed in place some time after the Secret; cert-manager renews months
before the end. New connections get the new certificate, and open ones stay.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

__all__ = ["Certificate"]

log = logging.getLogger(__name__)


class Certificate:
    """A certificate and its key, PEM."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises OSError, of which ssl.SSLError is one, for files that cannot be used."""
        self._cert, self._key = cert, key
        self._seen = self._times()
        self.context = _context(cert, key)
        """For a server; what it is given anew, connections opened later use."""

    def renew(self) -> bool:
        """Read the files again where they have changed; returns whether they had.

        Files that do not belong together, as for a moment while they are written, are left for the
        next time. Raises OSError for them.
        """
        seen = self._times()
        if seen == self._seen:
            return False
        _context(self._cert, self._key)  # a pair that does not match must not reach the server's
        self.context.load_cert_chain(self._cert, self._key)
        self._seen = seen
        return True

    def _times(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in (self._cert, self._key))


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context
