"""Profiles in a database that several servers may share.

store = SqlProfileStore(Database.of_file(directory), most=10_000)

What keeps requests from waiting for a database that is away: the first one that fails marks it as
such, and from then on only a thread of the store's own tries it, every `RETRY_S` seconds. The same
thread looks every `POLL_S` seconds whether another server has added a profile.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, func, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, SQLAlchemyError

from memplan.types import DeviceType, MeasuredProfile
from memplan_server.errors import StoreFailure, UnknownName
from memplan_server.profiles import records
from memplan_server.profiles.database import PROFILES, Database
from memplan_server.profiles.interface import ProfilePage

__all__ = ["SqlProfileStore"]

log = logging.getLogger(__name__)

POLL_S = 1.0
RETRY_S = 10.0
CLOSE_S = 5.0
"""Longest wait for the thread on closing."""
MOST_RECENT = 1_000
PAGE_BYTES = 2 << 20
"""A page ends when it has so many bytes; clients take larger answers, but few."""
AWAY = "The database of profiles does not answer. Try again in a minute."

_P = PROFILES.c
_NEWEST_FIRST = (_P.create_time.desc(), _P.profile_id.desc())


class SqlProfileStore:
    """A `ProfileStore`."""

    def __init__(self, database: Database, *, most: int) -> None:
        """Keeps at most `most` profiles. Waits a few seconds for a database that is away."""
        self._database = database
        self._most = most
        self._lock = threading.Lock()
        self._away = True
        self._complaint = ""
        self._last_sequence = 0
        self._version = 0
        self._recent: dict[str, tuple[int, tuple[MeasuredProfile, ...]]] = {}
        self._closing = False
        self._wake = threading.Event()
        self._look()
        if self._wake.is_set():  # a damaged file was set aside
            self._look()
        self._thread = threading.Thread(target=self._watch, name="memplan-profiles", daemon=True)
        self._thread.start()

    @property
    def available(self) -> bool:
        """Whether the database answered the last time it was asked."""
        return not self._away

    def add(self, profile: MeasuredProfile) -> MeasuredProfile:
        """See `ProfileStore.add`."""
        kept = records.identified(profile)
        row = records.row(kept)
        try:
            try:
                self._insert(row)
            except StoreFailure:
                self._look()  # it may be back, and what was measured is worth a short wait
                self._insert(row)
        except StoreFailure as failure:
            log.warning("a profile is not kept: %s", failure)
            return profile
        self._look()
        return kept

    def get(self, profile_id: str) -> MeasuredProfile:
        """See `ProfileStore.get`."""
        with self._connection() as connection:
            wanted = select(_P.data, _P.curve).where(_P.profile_id == profile_id)
            found = connection.execute(wanted).first()
        if found is None:
            raise UnknownName("profile", profile_id)
        return records.decoded(found.data, found.curve)

    def page(
        self, *, size: int, after: str = "", gpu_type: str = "", job_digest: str = ""
    ) -> ProfilePage:
        """See `ProfileStore.page`."""
        wanted = select(_P.profile_id, _P.data).order_by(*_NEWEST_FIRST).limit(size + 1)
        if gpu_type:
            wanted = wanted.where(_P.gpu_type == gpu_type)
        if job_digest:
            wanted = wanted.where(_P.job_digest == job_digest)
        with self._connection() as connection:
            if after:
                at = select(_P.create_time).where(_P.profile_id == after)
                last = connection.scalar(at)
                if last is None:  # it has left meanwhile, and so have all that are older
                    return ProfilePage()
                wanted = wanted.where(tuple_(_P.create_time, _P.profile_id) < (last, after))
            return _page(connection.execute(wanted).all(), size)

    def newest(
        self, job_digest: str, gpu_type: str, micro_batch_size: int
    ) -> MeasuredProfile | None:
        """See `ProfileStore.newest`."""
        on_gpu = and_(_P.device_type == DeviceType.CUDA.value, _P.gpu_type == gpu_type)
        on_cpu = and_(_P.device_type == DeviceType.CPU.value, _P.gpu_type.in_(("", gpu_type)))
        wanted = (
            select(_P.data)
            .where(_P.job_digest == job_digest, _P.micro_batch_size == micro_batch_size)
            .where(or_(on_gpu, on_cpu))
            .order_by(_P.device_type != DeviceType.CUDA.value, _P.out_of_memory, *_NEWEST_FIRST)
            .limit(1)
        )
        found = self._profiles(wanted)
        return found[0] if found else None

    def recent(self, gpu_type: str) -> tuple[MeasuredProfile, ...]:
        """See `ProfileStore.recent`."""
        version = self._version
        known_version, known = self._recent.get(gpu_type, (None, ()))
        if version == known_version:
            return known
        wanted = (
            select(_P.data)
            .where(_P.device_type == DeviceType.CUDA.value, _P.gpu_type == gpu_type)
            .order_by(*_NEWEST_FIRST)
            .limit(MOST_RECENT)
        )
        found = self._profiles(wanted)
        if found is None:
            return known
        self._recent[gpu_type] = (version, found)
        return found

    def version(self) -> int:
        """See `ProfileStore.version`."""
        return self._version

    def close(self) -> None:
        """Close the database."""
        self._closing = True
        self._wake.set()
        self._thread.join(CLOSE_S)
        self._database.close()

    def _insert(self, row: dict[str, Any]) -> None:
        """Add a row unless its id is there; the oldest ones leave. Raises StoreFailure."""
        with self._connection(writing=True) as connection:
            on_server = connection.dialect.name == "postgresql"
            insert = postgresql.insert(PROFILES) if on_server else sqlite.insert(PROFILES)
            new = insert.values(row).on_conflict_do_nothing(index_elements=["profile_id"])
            connection.execute(new)
            oldest = select(_P.sequence).order_by(*_NEWEST_FIRST).offset(self._most)
            connection.execute(delete(PROFILES).where(_P.sequence.in_(oldest)))

    def _profiles(self, wanted: Select[Any]) -> tuple[MeasuredProfile, ...] | None:
        """Those that can be read; None while the database is away."""
        try:
            with self._connection() as connection:
                found = connection.execute(wanted).all()
        except StoreFailure:
            return None
        return _readable(row.data for row in found)

    @contextlib.contextmanager
    def _connection(self, *, writing: bool = False) -> Iterator[Connection]:
        """To work with. Raises StoreFailure, at once while the database is away."""
        if self._away:
            raise StoreFailure(AWAY)
        try:
            with self._database.writing() if writing else self._database.reading() as connection:
                yield connection
        except DataError as error:  # the fault of the profile: a text that cannot be stored
            raise StoreFailure(self._database.said(error)) from None
        except SQLAlchemyError as error:
            self._failed(error)
            raise StoreFailure(AWAY) from None

    def _watch(self) -> None:
        while not self._closing:
            self._look()
            self._wake.wait(RETRY_S if self._away else POLL_S)
            self._wake.clear()

    def _look(self) -> None:
        """See what others have added, and whether a database that was away is back."""
        try:
            if self._away:
                self._database.prepare()
            with self._database.reading() as connection:
                last = connection.scalar(select(func.max(_P.sequence))) or 0
        except SQLAlchemyError as error:
            self._failed(error)
            return
        with self._lock:
            was_away, self._away, self._complaint = self._away, False, ""
            # After _away: an answer under the new version is one of a database that is there.
            if was_away or last != self._last_sequence:
                self._last_sequence = last
                self._version += 1
        if was_away:
            log.info("profiles are kept: %s", self._database.where)

    def _failed(self, error: SQLAlchemyError) -> None:
        """From now on the database is away; where a damaged file was set aside, not for long."""
        complaint = self._database.said(error)
        with self._lock:
            self._away = True
            is_new, self._complaint = complaint != self._complaint, complaint
            if self._database.mended(error):
                self._wake.set()
        if is_new:
            log.warning("profiles are out of reach: %s: %s", self._database.where, complaint)


def _page(found: Sequence[Any], size: int) -> ProfilePage:
    """The first rows, as many as a page may have."""
    count, held_bytes = 0, 0
    while count < min(size, len(found)) and (not count or held_bytes < PAGE_BYTES):
        held_bytes += len(found[count].data)
        count += 1
    last = found[count - 1].profile_id if count < len(found) else ""
    return ProfilePage(profiles=_readable(row.data for row in found[:count]), next_after=last)


def _readable(rows: Iterable[bytes]) -> tuple[MeasuredProfile, ...]:
    """Without those that only a later version can read."""
    found = []
    for data in rows:
        try:
            found.append(records.decoded(data))
        except StoreFailure as failure:
            log.info("left out: %s", failure)
    return tuple(found)
