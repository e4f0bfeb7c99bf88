"""Timelines are traced once for all who ask, and the same from wherever they come."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fake_tasks import SLOW_S, gate
from serving import SOON_S, wait_until
from test_workers import named

from memplan.types import AllocatorSettings, GpuType, Precision, TrainingJob
from memplan_server.calls import Call
from memplan_server.errors import Cancelled, InvalidJob, TimeLimitExceeded
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.metrics import Metrics
from memplan_server.store import Store
from memplan_server.timelines import TimelineCache
from memplan_server.workers import Workers

CATALOG = GpuCatalog.load()
A100 = CATALOG.get("nvidia-a100-80gb")
B200 = CATALOG.get("nvidia-b200")
T4 = CATALOG.get("nvidia-t4")


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    monkeypatch.setenv("FAKE_TASKS_LOG", str(folder))
    monkeypatch.setenv("FAKE_TASKS_GATE", str(tmp_path / "gate"))
    return folder


def counted(traces: Path) -> Counter[str]:
    return Counter(path.read_text() for path in traces.iterdir())


def waiters(parts: Parts) -> list[int]:
    """How many wait for each piece of work under way."""
    return [flight.waiters for flight in parts.timelines._flights._flights.values()]


def busy(parts: Parts) -> bool:
    state = {"state": "busy"}
    return parts.metrics.registry.get_sample_value("memplan_workers", state) == 1


class Parts:
    """A cache of timelines and all it needs, on a data directory."""

    def __init__(self, directory: Path, workers: int = 1) -> None:
        self.metrics = Metrics()
        self.store = Store(directory, capacity_bytes=1 << 24)
        self.workers = Workers(
            workers,
            metrics=self.metrics,
            time_limit_s=600,
            memory_limit_bytes=None,
            tasks_module="fake_tasks",
        )
        self.timelines = TimelineCache(
            workers=self.workers, store=self.store, metrics=self.metrics, capacity_bytes=1 << 20
        )

    def get(self, job: TrainingJob, gpu_type: GpuType = A100, call: Call | None = None) -> bytes:
        found = self.timelines.get(normalize(job), gpu_type, call or Call(SOON_S))
        return found.to_bytes()

    def close(self) -> None:
        self.workers.stop()
        self.store.close()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "data")
    yield made
    made.close()


def test_from_memory_from_the_store_and_fresh_are_equal(
    parts: Parts, tmp_path: Path, traces: Path
) -> None:
    fresh = parts.get(named("ok"))
    assert parts.get(named("ok")) == fresh
    parts.close()
    again = Parts(tmp_path / "data")
    assert again.get(named("ok")) == fresh
    again.close()
    assert counted(traces) == {"trace fake/ok": 1}


def test_one_timeline_serves_all_batch_sizes_gpus_and_allocators(
    parts: Parts, traces: Path
) -> None:
    job = named("ok")
    parts.get(job)
    parts.get(replace(job, micro_batch_size=64), T4)
    parts.get(replace(job, allocator=AllocatorSettings(expandable_segments=True)))
    parts.get(replace(job, precision=Precision.FP32), B200)
    assert counted(traces) == {"trace fake/ok": 1}
    parts.get(replace(job, precision=Precision.BF16))
    assert counted(traces) == {"trace fake/ok": 2}


def test_two_micro_batches_stand_for_many(parts: Parts, traces: Path) -> None:
    job = normalize(named("ok"))
    for steps, expected in ((1, 1), (2, 2), (40, 2)):
        parts.get(replace(job, loop=replace(job.loop, accumulation_steps=steps)))
        assert counted(traces) == {"trace fake/ok": expected}


def test_kernel_classes_have_their_own_where_they_differ(parts: Parts, traces: Path) -> None:
    for gpu_type, expected in ((A100, 1), (T4, 2), (A100, 2), (B200, 3)):
        parts.get(named("attention"), gpu_type)
        assert counted(traces) == {"trace fake/attention": expected}


@pytest.mark.parametrize(("name", "expected"), [("ok", 1), ("attention", 5)])
def test_what_many_gpus_need_is_prepared(
    parts: Parts, traces: Path, name: str, expected: int
) -> None:
    parts.timelines.prepare(normalize(named(name)), CATALOG.all(), Call(SOON_S))
    assert counted(traces) == {f"trace fake/{name}": expected}
    for gpu_type in CATALOG.all():
        parts.get(named(name), gpu_type)
    assert counted(traces) == {f"trace fake/{name}": expected}


def test_preparing_raises_what_getting_raises(parts: Parts) -> None:
    with pytest.raises(InvalidJob):
        parts.timelines.prepare(normalize(named("build-error")), CATALOG.all(), Call(SOON_S))


def test_what_many_gpus_need_is_prepared_side_by_side(tmp_path: Path, traces: Path) -> None:
    several = Parts(tmp_path / "data", workers=2)
    several.timelines.prepare(normalize(named("meeting")), CATALOG.all(), Call(SOON_S))
    several.close()
    assert counted(traces) == {"trace fake/meeting": 5}


def test_batch_sizes_have_their_own_where_they_differ(parts: Parts, traces: Path) -> None:
    for size, expected in ((1, 1), (2, 2), (1, 2), (2, 2), (3, 3)):
        parts.get(replace(named("routed"), micro_batch_size=size))
        assert counted(traces) == {"trace fake/routed": expected}


def test_a_damaged_timeline_is_traced_again(parts: Parts, tmp_path: Path, traces: Path) -> None:
    fresh = parts.get(named("ok"))
    keys = parts.store._connect().execute("SELECT key FROM keys").fetchall()
    parts.store.put([key for (key,) in keys], b"PK damaged")
    parts.close()
    again = Parts(tmp_path / "data")
    assert again.get(named("ok")) == fresh
    again.close()
    assert counted(traces) == {"trace fake/ok": 2}


def test_equal_jobs_in_flight_are_traced_once(parts: Parts, traces: Path) -> None:
    jobs = [replace(named("slow"), micro_batch_size=1 + n % 3) for n in range(12)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        assert len(set(pool.map(parts.get, jobs))) == 1
    assert counted(traces) == {"trace fake/slow": 1}


def test_errors_reach_everyone_and_are_not_kept(parts: Parts, traces: Path) -> None:
    for expected in (1, 2):
        with pytest.raises(InvalidJob):
            parts.get(named("build-error"))
        assert counted(traces) == {"trace fake/build-error": expected}


def test_the_deadline_of_one_does_not_take_the_work_of_another(parts: Parts, traces: Path) -> None:
    parts.get(named("ok"))  # the worker is started
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(parts.get, named("gated"))
        wait_until(lambda: waiters(parts) == [1])
        with pytest.raises(TimeLimitExceeded):
            parts.get(named("gated"), call=Call(0.1))
        gate().touch()
        assert patient.result(SOON_S)
    assert counted(traces)["trace fake/gated"] == 1


def test_work_stops_when_the_last_one_leaves(parts: Parts) -> None:
    parts.get(named("ok"))
    calls = [Call(), Call()]
    errors: list[Exception] = []

    def wait(call: Call) -> None:
        try:
            parts.get(named("hang"), call=call)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=wait, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    wait_until(lambda: waiters(parts) == [2] and busy(parts))
    calls[0].cancel()
    threads[0].join(SOON_S)
    cancelled = ("memplan_worker_ends_total", {"reason": "cancelled"})
    assert parts.metrics.registry.get_sample_value(*cancelled) == 0
    calls[1].cancel()
    threads[1].join(SOON_S)
    assert [type(error) for error in errors] == [Cancelled, Cancelled]
    parts.get(named("attention"))  # the one worker is free again
    assert parts.metrics.registry.get_sample_value(*cancelled) == 1


def test_a_call_that_is_over_starts_nothing(parts: Parts, traces: Path) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        parts.get(named("ok"), call=call)
    with pytest.raises(TimeLimitExceeded):
        parts.get(named("ok"), call=Call(0))
    time.sleep(SLOW_S)
    assert not counted(traces)
