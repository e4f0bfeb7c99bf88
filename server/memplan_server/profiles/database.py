"""The database of profiles: a SQLite file, memory, or PostgreSQL, all through SQLAlchemy Core.

database = Database.of_file(directory) or Database.of_server("postgresql://host/memplan")
database.prepare()                              # the table, where it is not there yet
with database.writing() as connection: ...      # a transaction, one at a time

Everything raises SQLAlchemyError. Passwords are in the engine and nowhere else: `where` names the
database without, `said` takes them out of messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    QueuePool,
    String,
    Table,
    create_engine,
    inspect,
    make_url,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

__all__ = ["PROFILES", "Database"]

log = logging.getLogger(__name__)

FILE_NAME = "profiles.sqlite3"
BUSY_TIMEOUT_S = 5
"""Longest wait for another process that writes to the file."""
CONNECTION = {"connect_timeout": "3", "tcp_user_timeout": "5000", "application_name": "memplan"}
"""What libpq is told unless the URL says otherwise: seconds, milliseconds."""
STATEMENT_TIMEOUT = "SET LOCAL statement_timeout = '5s'"
LOCK = f"SELECT pg_advisory_xact_lock({int.from_bytes(b'memplan')})"
"""Held by one transaction that writes at a time, until it ends."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_TEXT = String().with_variant(String(collation="C"), "postgresql")
_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

PROFILES = Table(
    "memplan_profiles",
    MetaData(),
    # In the order of commits, as transactions that write go one by one; never used twice.
    Column("sequence", _NUMBER, primary_key=True),
    Column("profile_id", _TEXT, nullable=False, unique=True),
    Column("job_digest", _TEXT, nullable=False),
    Column("gpu_type", _TEXT, nullable=False),
    Column("device_type", _TEXT, nullable=False),
    Column("micro_batch_size", _NUMBER, nullable=False),
    Column("out_of_memory", Boolean, nullable=False),
    Column("create_time", _NUMBER, nullable=False),  # microseconds since 1970, UTC
    Column("host", _TEXT, nullable=False),
    Column("data", LargeBinary, nullable=False),  # a serialised MeasuredProfile without its curve
    Column("curve", LargeBinary, nullable=False),  # one with its curve only
    Index("memplan_profiles_time", "create_time", "profile_id"),
    Index("memplan_profiles_gpu", "gpu_type", "create_time", "profile_id"),
    Index("memplan_profiles_job", "job_digest", "micro_batch_size"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """Where profiles are. Safe to use from several threads."""

    engine: Engine
    where: str
    """Names it in messages."""
    path: Path | None = None
    """The file, of SQLite."""
    secret: str = field(default="", repr=False)

    @classmethod
    def of_file(cls, directory: Path) -> Database:
        """A file in `directory`; memory, with a warning, where nothing can be written there."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK):
                raise PermissionError(f"{directory} cannot be written to")
        except OSError as error:
            log.warning("profiles are kept in memory only: %s", error)
            return cls(engine=_sqlite_engine("sqlite://"), where="in memory")
        path = directory / FILE_NAME
        return cls(engine=_sqlite_engine(f"sqlite:///{path}"), where=str(path), path=path)

    @classmethod
    def of_server(cls, address: str) -> Database:
        """PostgreSQL by URL, `postgresql://user:password@host/database?sslmode=require`."""
        url = make_url(address)
        given = dict(url.query)
        password = given.pop("password", url.password)
        if password is not None:  # where SQLAlchemy hides it
            url = url.set(password=str(password))
        url = url.set(drivername="postgresql+psycopg", query={**CONNECTION, **given})
        engine = create_engine(
            url,
            pool_size=4,
            max_overflow=4,
            pool_timeout=5,
            pool_pre_ping=True,  # a server that was restarted is not noticed
            connect_args={"prepare_threshold": None},  # works behind pgbouncer
            hide_parameters=True,
        )
        named = (
            f"PostgreSQL, {url.database or ''} on {url.host or given.get('host') or 'this host'}"
        )
        return cls(engine=engine, where=named, secret=url.password or "")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read by."""
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(STATEMENT_TIMEOUT)
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; no other one does meanwhile."""
        with self.reading() as connection:
            postgresql = connection.dialect.name == "postgresql"
            connection.exec_driver_sql(LOCK if postgresql else "BEGIN IMMEDIATE")
            yield connection

    def prepare(self) -> None:
        """Make the table where it is not there; several servers may do so at once."""
        with self.writing() as connection:
            if inspect(connection).has_table(PROFILES.name):
                return
            connection.execute(CreateTable(PROFILES))
            for index in sorted(PROFILES.indexes, key=lambda index: str(index.name)):
                connection.execute(CreateIndex(index))

    def mended(self, error: SQLAlchemyError) -> bool:
        """Whether a damaged file was set aside, so that there is a new one; its table is not made.

        Where another process has done so already, the file is sound, and stays.
        """
        code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
        if self.path is None or code not in _DAMAGED:
            return False
        self.engine.dispose()
        try:
            with _alone_in(self.path.parent):
                if not _is_sound(self.path):
                    _set_aside(self.path)
        except OSError as failure:
            log.warning("%s is damaged and cannot be set aside: %s", self.path, failure)
            return False
        return True

    def said(self, error: SQLAlchemyError) -> str:
        """What the driver says, on one line, without passwords and without statements."""
        text = str(error.orig if isinstance(error, DBAPIError) else error)
        if self.secret:
            text = text.replace(self.secret, "***")
        return " ".join(text.split())

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _sqlite_engine(url: str) -> Engine:
    """With one connection for all threads: memory is one connection's."""
    return create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        hide_parameters=True,
    )


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep other threads and processes that ask for this out of it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    os.replace(path, aside)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    log.warning("%s was damaged: it is %s now, and begun anew", path, aside.name)


def _is_sound(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False
