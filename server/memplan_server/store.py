"""Bytes by key, kept across restarts in one SQLite file.

    store = Store(Path("/var/lib/memplan"), capacity_bytes=1 << 30)
    store.put(["a", "b"], data)     # one value under two keys
    store.get("a")

What is kept can be made again, so nothing here ever fails a request: a file that is damaged is set
aside and begun anew, and a directory that cannot be written to makes the store forgetful, each with
a warning. Several processes may share a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Store"]

log = logging.getLogger(__name__)

FILE_NAME = "memplan.sqlite3"
BUSY_TIMEOUT_S = 5.0
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, size INTEGER NOT NULL, used_at REAL NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY, entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS keys_entry ON keys (entry);
CREATE INDEX IF NOT EXISTS entries_used_at ON entries (used_at, size);
"""


class Store:
    """Values by key; those used longest ago leave when there are too many bytes."""

    def __init__(self, directory: Path | None, *, capacity_bytes: int) -> None:
        """Open or make the file in `directory`; None keeps everything in memory."""
        self.capacity_bytes = capacity_bytes
        self._path = None if directory is None else directory / FILE_NAME
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            if directory is not None:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock, self._forgiving(sqlite3.OperationalError):
                self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            log.warning("nothing is kept across restarts: %s: %s", self._path, error)
            self._path = None

    def get(self, key: str) -> bytes | None:
        """The value kept under `key`, or None."""
        with self._lock, self._forgiving():
            connection = self._connect()
            row = connection.execute(
                "SELECT id, data FROM entries JOIN keys ON entry = id WHERE key = ?", (key,)
            ).fetchone()
            if row is not None:
                with connection:
                    connection.execute(
                        "UPDATE entries SET used_at = ? WHERE id = ?", (time.time(), row[0])
                    )
                data: bytes = row[1]
                return data
        return None

    def put(self, keys: Sequence[str], data: bytes) -> None:
        """Keep `data` under each of `keys`, in place of what was there."""
        with self._lock, self._forgiving():
            connection = self._connect()
            with connection:
                entry = connection.execute(
                    "INSERT INTO entries (data, size, used_at) VALUES (?, ?, ?)",
                    (data, len(data), time.time()),
                ).lastrowid
                connection.executemany(
                    "INSERT OR REPLACE INTO keys (key, entry) VALUES (?, ?)",
                    [(key, entry) for key in keys],
                )
                connection.execute("DELETE FROM entries WHERE id NOT IN (SELECT entry FROM keys)")
                self._shrink(connection)

    def size_bytes(self) -> int:
        """Bytes of all values kept."""
        with self._lock, self._forgiving():
            total = "SELECT coalesce(sum(size), 0) FROM entries"
            return int(self._connect().execute(total).fetchone()[0])
        return 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Let go of what was used longest ago, down to the capacity."""
        connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM (SELECT id, sum(size) OVER "
            "(ORDER BY used_at DESC, id DESC) AS newer FROM entries) WHERE newer > ?)",
            (self.capacity_bytes,),
        )

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                self._path or ":memory:", timeout=BUSY_TIMEOUT_S, check_same_thread=False
            )
            self._connection.executescript(SCHEMA)
        return self._connection

    @contextlib.contextmanager
    def _forgiving(self, *unless: type[sqlite3.Error]) -> Iterator[None]:
        """Turn what SQLite raises into a warning; a damaged file is set aside."""
        try:
            yield
        except unless:
            raise
        except sqlite3.OperationalError as error:  # locked, full, read-only: the file is sound
            log.warning("the store does not answer: %s", error)
        except sqlite3.DatabaseError as error:
            log.warning("the store is damaged and begun anew: %s", error)
            self._set_aside()

    def _set_aside(self) -> None:
        """Rename the file, so that the next connection makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        assert self._path is not None
        with contextlib.suppress(OSError):
            os.replace(self._path, self._path.with_suffix(".damaged"))
        for suffix in ("-wal", "-shm"):
            self._path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
