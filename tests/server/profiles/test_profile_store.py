"""What is stored comes back, in order, and survives what happens to databases."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgresql import PASSWORD, PostgreSql
from sqlalchemy import insert
from strategies import instances

from memplan.types import DeviceType, MeasuredProfile, MemoryPoint, TrainingJob
from memplan_server.errors import StoreFailure, UnknownName
from memplan_server.profiles import store as store_module
from memplan_server.profiles.database import PROFILES, Database
from memplan_server.profiles.records import identified, row
from memplan_server.profiles.store import SqlProfileStore

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON_S = 60.0

Opener = Callable[[], Database]
Opened = Callable[..., SqlProfileStore]


@pytest.fixture
def opened(open_database: Opener, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens stores of one database; they are closed with the test."""
    monkeypatch.setattr(store_module, "RETRY_S", 0.1)
    monkeypatch.setattr(store_module, "POLL_S", 0.1)
    with contextlib.ExitStack() as stack:

        def opened(most: int = 1000) -> SqlProfileStore:
            store = SqlProfileStore(open_database(), most=most)
            stack.callback(store.close)
            return store

        yield opened


def measured(minute: int = 0, **fields: object) -> MeasuredProfile:
    defaults: dict[str, object] = {
        "device_type": DeviceType.CUDA,
        "gpu_type": "nvidia-t4",
        "job_digest": "d",
        "micro_batch_size": 4,
        "peak_reserved_bytes": 1 << 30,
        "job": TrainingJob(micro_batch_size=4),
        "curve": (MemoryPoint(event=1, allocated_bytes=5),),
        "create_time": NOON + timedelta(minutes=minute),
    }
    return MeasuredProfile(**(defaults | fields))  # type: ignore[arg-type]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_profile_gets_an_id_and_comes_back(opened: Opened) -> None:
    store = opened()
    kept = store.add(measured())
    assert kept == replace(measured(), profile_id=kept.profile_id)
    assert len(kept.profile_id) == 16
    assert store.get(kept.profile_id) == kept
    assert store.page(size=9).profiles == (replace(kept, curve=()),)
    with pytest.raises(UnknownName, match="no profile 'other'"):
        store.get("other")
    assert opened().get(kept.profile_id) == kept


def test_an_id_that_is_there_is_kept_and_changes_nothing(opened: Opened) -> None:
    store = opened()
    first = store.add(measured(profile_id="given"))
    assert first.profile_id == "given"
    version = store.version()
    assert store.add(measured(5, profile_id="given", host="another")).profile_id == "given"
    assert store.get("given") == first
    assert store.version() == version


def test_times_are_given_where_there_are_none(opened: Opened) -> None:
    kept = opened().add(measured(create_time=None))
    assert kept.create_time is not None
    assert abs(kept.create_time - datetime.now(UTC)) < timedelta(minutes=5)


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(profile=instances(MeasuredProfile))
def test_any_profile_survives(opened: Opened, profile: MeasuredProfile) -> None:
    store = _only(opened)
    texts = (profile.profile_id, profile.job_digest, profile.gpu_type, profile.host)
    kept = store.add(replace(profile, profile_id=""))
    if "\0" in "".join(texts[1:]) and not kept.profile_id:
        return  # PostgreSQL has no such text
    assert store.get(kept.profile_id) == kept
    assert kept == replace(
        profile,
        profile_id=kept.profile_id,
        create_time=profile.create_time or kept.create_time,
    )
    assert replace(kept, curve=()) in store.page(size=1000).profiles
    assert store.available


_stores: dict[Opened, SqlProfileStore] = {}


def _only(opened: Opened) -> SqlProfileStore:
    """One store for all examples."""
    if opened not in _stores:
        _stores.clear()
        _stores[opened] = opened()
    return _stores[opened]


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    minutes=st.lists(st.integers(0, 3), max_size=12),
    size=st.integers(1, 5),
    added=st.lists(st.integers(5, 9), max_size=4),
)
def test_pages_are_newest_first_and_stable(
    opened: Opened, minutes: list[int], size: int, added: list[int]
) -> None:
    store = _only(opened)
    digest = os.urandom(8).hex()
    kept = [store.add(measured(minute, job_digest=digest)) for minute in minutes]
    expected = sorted(((p.create_time, p.profile_id) for p in kept), reverse=True)
    found: list[MeasuredProfile] = []
    after, more = "", iter(added)
    while True:
        page = store.page(size=size, after=after, job_digest=digest)
        found += page.profiles
        if (minute := next(more, None)) is not None:  # newer than all
            store.add(measured(minute, job_digest=digest))
        if not page.next_after:
            break
        assert len(page.profiles) == size
        after = page.next_after
    assert [(p.create_time, p.profile_id) for p in found] == expected


def test_filters_go_together(opened: Opened) -> None:
    store = opened()
    for gpu_type in ("nvidia-t4", "nvidia-a10"):
        for digest in ("one", "two"):
            store.add(measured(gpu_type=gpu_type, job_digest=digest, profile_id=gpu_type + digest))

    def ids(**filters: str) -> set[str]:
        return {p.profile_id for p in store.page(size=9, **filters).profiles}  # type: ignore[arg-type]

    assert len(ids()) == 4
    assert ids(gpu_type="nvidia-t4") == {"nvidia-t4one", "nvidia-t4two"}
    assert ids(gpu_type="nvidia-t4", job_digest="two") == {"nvidia-t4two"}
    assert not ids(gpu_type="t4")


def test_a_page_ends_when_it_is_large(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PAGE_BYTES", 1000)
    store = opened()
    for minute in range(4):
        store.add(measured(minute, notes=("x" * 600,)))
    sizes, after = [], ""
    while not sizes or after:
        page = store.page(size=100, after=after)
        sizes.append(len(page.profiles))
        after = page.next_after
    assert sizes == [2, 2]


def test_the_oldest_leave(opened: Opened) -> None:
    store = opened(most=3)
    for minute in (5, 1, 4, 2, 3):
        store.add(measured(minute, profile_id=str(minute)))
    assert [p.profile_id for p in store.page(size=9).profiles] == ["5", "4", "3"]
    # What has left was the oldest: nothing comes after it.
    assert store.page(size=9, after="2").profiles == ()


def test_the_newest_is_of_the_gpu_and_went_to_its_end(opened: Opened) -> None:
    store = opened()
    assert store.newest("d", "nvidia-t4", 4) is None
    steps = (
        ("cpu", measured(1, device_type=DeviceType.CPU, gpu_type="")),
        ("cpu-newer", measured(2, device_type=DeviceType.CPU, gpu_type="")),
        ("failed", measured(3, out_of_memory=True)),
        ("done", measured(0)),
        ("done-newer", measured(1)),
        ("done-newer", measured(9, out_of_memory=True)),
        ("done-newer", measured(9, gpu_type="nvidia-a10")),
        ("done-newer", measured(9, gpu_type="")),
        ("done-newer", measured(9, micro_batch_size=5)),
        ("done-newer", measured(9, job_digest="another")),
    )
    for number, (expected, profile) in enumerate(steps):
        kept = store.add(replace(profile, host=f"{expected}{number}"))
        found = store.newest("d", "nvidia-t4", 4)
        assert found is not None
        assert found.host.rstrip("0123456789") == expected
        if found.host == kept.host:
            assert found == replace(kept, curve=())
    assert store.newest("d", "nvidia-h200", 4).host.startswith("cpu-newer")  # type: ignore[union-attr]


def test_recent_ones_are_of_that_gpu_and_newest_first(opened: Opened) -> None:
    store = opened()
    assert store.recent("nvidia-t4") == ()
    for minute in (2, 3, 1):
        store.add(measured(minute, profile_id=str(minute), out_of_memory=minute == 1))
    store.add(measured(4, gpu_type="nvidia-a10"))
    store.add(measured(4, device_type=DeviceType.CPU))
    found = store.recent("nvidia-t4")
    assert [p.profile_id for p in found] == ["3", "2", "1"]
    assert not any(p.curve for p in found)
    assert store.recent("nvidia-t4") is found  # nothing has changed since
    store.add(measured(5))
    assert len(store.recent("nvidia-t4")) == 4


def test_versions_tell_of_what_others_add(opened: Opened) -> None:
    first, second = opened(), opened()
    before = second.version()
    assert second.recent("nvidia-t4") == ()
    kept = first.add(measured())
    assert first.version() != before or first.newest("d", "nvidia-t4", 4)
    wait_until(lambda: second.version() != before)
    assert second.recent("nvidia-t4") == (replace(kept, curve=()),)
    assert second.get(kept.profile_id) == kept
    settled = second.version()
    time.sleep(0.35)
    assert second.version() == settled


def test_ones_own_version_changes_at_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "POLL_S", 60.0)
    store = opened()
    before = store.version()
    store.add(measured())
    assert store.version() != before


def test_many_may_start_and_add_at_once(opened: Opened) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: opened(), range(8)))
        assert all(store.available for store in stores)
        kept = list(pool.map(lambda n: stores[n % 8].add(measured(n)), range(40)))
    ids = {profile.profile_id for profile in kept}
    assert len(ids) == 40
    assert {p.profile_id for p in stores[0].page(size=99).profiles} == ids


def test_what_a_later_version_stored_is_left_out(
    opened: Opened, open_database: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = opened()
    kept = store.add(measured())
    later = row(identified(measured(1))) | {"profile_id": "later", "data": b"\x50\x63"}  # type 99
    database = open_database()
    with database.writing() as connection:
        connection.execute(insert(PROFILES).values(later))
    database.close()
    assert [p.profile_id for p in store.page(size=9).profiles] == [kept.profile_id]
    assert "left out" in caplog.text
    with pytest.raises(StoreFailure, match="cannot read"):
        store.get("later")
    assert store.available


@pytest.mark.integration
def test_a_database_that_is_killed_and_comes_back(
    postgresql: PostgreSql, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(store_module, "RETRY_S", 0.1)
    url = postgresql.new_database()
    store = SqlProfileStore(Database.of_server(url), most=9)
    try:
        kept = store.add(measured())
        recent = store.recent("nvidia-t4")
        postgresql.kill()
        assert store.add(measured(1)) == measured(1)
        assert not store.available
        assert store.newest("d", "nvidia-t4", 4) is None
        assert store.recent("nvidia-t4") == recent
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreFailure, match="Try again"):
                store.get(kept.profile_id)
            with pytest.raises(StoreFailure, match="Try again"):
                store.page(size=1)
        assert time.monotonic() - started < 1
        version = store.version()
        late = SqlProfileStore(Database.of_server(url), most=9)  # one that starts meanwhile
        assert not late.available
        postgresql.start()
        wait_until(lambda: store.available and late.available)
        assert store.version() != version
        assert store.get(kept.profile_id) == late.get(kept.profile_id) == kept
        assert store.add(measured(2)).profile_id
        late.close()
    finally:
        store.close()
    assert "out of reach" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.integration
def test_passwords_are_told_to_nobody(
    postgresql: PostgreSql, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = postgresql.new_database().replace(PASSWORD, "wrong-battery")
    addresses = (url, url.replace("tester:wrong-battery", "tester") + "?password=wrong-battery")
    for address in addresses:
        database = Database.of_server(address)
        store = SqlProfileStore(database, most=9)
        assert not store.available
        assert "wrong-battery" not in f"{database!r}{database.where}"
        store.close()
    assert "authentication failed" in caplog.text
    assert "wrong-battery" not in caplog.text


GARBAGE = b"this is no database, whatever its name says" * 1000


def test_a_damaged_file_is_set_aside(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_dir.mkdir()
    file = data_dir / "profiles.sqlite3"
    file.write_bytes(GARBAGE)
    store = SqlProfileStore(Database.of_file(data_dir), most=9)
    assert store.available
    kept = store.add(measured())
    assert store.get(kept.profile_id) == kept
    (aside,) = data_dir.glob("*.damaged-*")
    assert aside.read_bytes() == GARBAGE
    assert "damaged" in caplog.text
    store.close()


def test_a_file_that_is_damaged_meanwhile_costs_no_new_profile(data_dir: Path) -> None:
    store = SqlProfileStore(Database.of_file(data_dir), most=9)
    lost = store.add(measured())
    (data_dir / "profiles.sqlite3").write_bytes(GARBAGE)
    kept = store.add(measured(1))
    assert store.get(kept.profile_id) == kept
    with pytest.raises(UnknownName):
        store.get(lost.profile_id)
    store.close()


def test_a_sound_file_is_not_set_aside_by_those_who_saw_the_damaged_one(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "profiles.sqlite3").write_bytes(GARBAGE)
    with ThreadPoolExecutor(4) as pool:
        stores = list(
            pool.map(lambda _: SqlProfileStore(Database.of_file(data_dir), most=9), range(4))
        )
    kept = [store.add(measured(n)) for n, store in enumerate(stores)]
    assert all(profile.profile_id for profile in kept)
    assert all(s.get(p.profile_id) == p for p, s in zip(kept, stores, strict=True))
    for store in stores:
        store.close()


def test_a_file_that_others_hold_is_waited_for_but_not_for_long(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memplan_server.profiles.database.BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(store_module, "RETRY_S", 0.1)
    store = SqlProfileStore(Database.of_file(data_dir), most=9)
    other = sqlite3.connect(data_dir / "profiles.sqlite3")
    other.execute("BEGIN EXCLUSIVE")
    assert store.add(measured()).profile_id == ""
    other.rollback()
    other.close()
    wait_until(lambda: store.available)
    assert store.add(measured()).profile_id
    assert not list(data_dir.glob("*.damaged-*"))
    store.close()


def test_without_a_directory_profiles_are_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = SqlProfileStore(Database.of_file(tmp_path / "file"), most=9)
    assert "in memory only" in caplog.text
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(lambda n: store.add(measured(n)), range(8)))
    assert store.get(kept[0].profile_id) == kept[0]
    assert len(store.page(size=9).profiles) == 8
    store.close()
