"""Files that others replace while they are in use: certificates, keys, tokens.

    files = WatchedFiles(Path("cert.pem"), Path("key.pem"))
    certificate, key = files.read()
    ...
    if files.changed():
        certificate, key = files.read()

Works for files that are written anew, renamed over or reached through a link that is turned (as
Kubernetes does). Two files are not replaced in one go: a reader has to check that what it got
belongs together, and finds `changed()` true again when the second has come.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["WatchedFiles"]


class WatchedFiles:
    """Some files, and whether they are as they were when they were read. Not for several threads
    at once."""

    def __init__(self, *paths: str | Path | None) -> None:
        """None stands for a file that is not wanted."""
        self._paths = tuple(None if path is None else Path(path) for path in paths)
        self._seen: tuple[tuple[int, int, int], ...] = ()

    def read(self) -> tuple[bytes | None, ...]:
        """What they hold now, None for those not wanted. Raises OSError."""
        # Looked at before it is read: what is written meanwhile counts as changed.
        self._seen = self._state()
        return tuple(None if path is None else path.read_bytes() for path in self._paths)

    def changed(self) -> bool:
        """Whether one was replaced since they were read; one that is gone is as it was."""
        try:
            return self._state() != self._seen
        except OSError:
            return False

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        found = (os.stat(path) for path in self._paths if path is not None)
        return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in found)
