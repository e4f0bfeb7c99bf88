"""Workers: what goes wrong inside one costs that task and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fake_tasks import NAMES, SLOW_S
from serving import SOON_S, wait_until

from memplan.types import CatalogModel, Model, TrainingJob
from memplan_server.errors import (
    Cancelled,
    InvalidJob,
    LimitExceeded,
    TimeLimitExceeded,
    WorkerFailure,
)
from memplan_server.metrics import Metrics
from memplan_server.workers import Workers

LIMIT = 256 << 20


def named(name: str) -> TrainingJob:
    return TrainingJob(model=Model(catalog=CatalogModel(name=f"fake/{name}")), micro_batch_size=1)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def workers(metrics: Metrics) -> Iterator[Workers]:
    made = Workers(
        1,
        metrics=metrics,
        time_limit_s=600,
        memory_limit_bytes=LIMIT,
        tasks_module="fake_tasks",
    )
    yield made
    made.stop()


def result(workers: Workers, name: str) -> Any:
    return workers.submit("trace", named(name), (8, 0)).future.result(SOON_S)


def worker_pid(workers: Workers) -> int:
    return int(workers.submit("pid").future.result(SOON_S))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def in_state(metrics: Metrics, state: str) -> float | None:
    """How many workers are in a state."""
    return metrics.registry.get_sample_value("memplan_workers", {"state": state})


def test_a_worker_starts_with_the_first_task_and_is_used_again(
    workers: Workers, metrics: Metrics
) -> None:
    assert in_state(metrics, "stopped") == 1
    first, second = worker_pid(workers), worker_pid(workers)
    assert first == second != os.getpid()
    wait_until(lambda: in_state(metrics, "idle") == 1)
    assert in_state(metrics, "stopped") == 0


def test_values_cross(workers: Workers) -> None:
    assert workers.submit("list_models").future.result(SOON_S) == NAMES


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("explode", LimitExceeded, "more memory"),
        ("kill", WorkerFailure, "status -9"),
        ("crash", WorkerFailure, "status -11"),
        ("defect", WorkerFailure, "RuntimeError"),
        ("build-error", InvalidJob, "cannot be built"),
    ],
)
def test_a_bad_task_fails_and_the_next_one_is_fine(
    workers: Workers, name: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        result(workers, name)
    assert result(workers, "ok")


def test_a_task_that_hangs_fails_and_the_next_one_is_fine(workers: Workers) -> None:
    work = workers.submit("trace", named("hang"), (8, 0), time_limit_s=0.5)
    with pytest.raises(TimeLimitExceeded, match=r"limit of 0\.5 s"):
        work.future.result(SOON_S)
    assert result(workers, "ok")


def test_time_counts_from_the_start_of_work(workers: Workers) -> None:
    limit_s = 6 * SLOW_S
    works = [workers.submit("trace", named("slow"), (8, 0), time_limit_s=limit_s) for _ in range(7)]
    for work in works:  # the last one waits for as long as the limit
        assert work.future.result(SOON_S)


def test_a_used_worker_out_of_memory_is_replaced_and_the_task_tried_again(
    workers: Workers, metrics: Metrics
) -> None:
    before = worker_pid(workers)
    assert result(workers, "memory-once")
    assert worker_pid(workers) == before
    assert result(workers, "memory-once")
    assert worker_pid(workers) != before
    ends = metrics.registry.get_sample_value(
        "memplan_worker_ends_total", {"reason": "memory_limit"}
    )
    assert ends == 1


def test_a_worker_killed_while_idle_costs_nothing(workers: Workers) -> None:
    pid = worker_pid(workers)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    assert worker_pid(workers) != pid


def test_cancelling_stops_the_work(workers: Workers, metrics: Metrics) -> None:
    pid = worker_pid(workers)
    work = workers.submit("trace", named("hang"), (8, 0))
    waiting = workers.submit("trace", named("ok"), (8, 0))
    wait_until(lambda: in_state(metrics, "busy") == 1)
    work.cancel()
    with pytest.raises(Cancelled):
        work.future.result(SOON_S)
    assert not is_alive(pid)
    assert waiting.future.result(SOON_S)


def test_cancelling_in_the_queue_leaves_the_worker_alone(workers: Workers) -> None:
    pid = worker_pid(workers)
    busy = workers.submit("trace", named("slow"), (8, 0))
    queued = workers.submit("trace", named("hang"), (8, 0))
    queued.cancel()
    assert busy.future.result(SOON_S)
    with pytest.raises(Cancelled):
        queued.future.result(SOON_S)
    assert worker_pid(workers) == pid


def test_stopping_cancels_everything(workers: Workers, metrics: Metrics) -> None:
    pid = worker_pid(workers)
    futures: list[Future[Any]] = [
        workers.submit("trace", named("hang"), (8, 0)).future for _ in range(3)
    ]
    wait_until(lambda: in_state(metrics, "busy") == 1)
    workers.stop()
    futures.append(workers.submit("pid").future)
    for future in futures:
        with pytest.raises(Cancelled):
            future.result(SOON_S)
    assert not is_alive(pid)


def test_a_worker_that_cannot_start_fails_its_task(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TASKS_START", "fail")
    with pytest.raises(WorkerFailure, match="could not start"):
        result(workers, "ok")
    monkeypatch.delenv("FAKE_TASKS_START")
    assert result(workers, "ok")


ORPHANING = """
import time
from test_workers import Metrics, Workers, named, worker_pid

def one(): return Workers(
    1, metrics=Metrics(), time_limit_s=60, memory_limit_bytes=None, tasks_module="fake_tasks")

idle, busy = one(), one()
print(worker_pid(idle), worker_pid(busy), flush=True)
busy.submit("trace", named("hang"), (8, 0))
time.sleep(0.2)
print("ready", flush=True)
time.sleep(60)
"""


def test_workers_do_not_outlive_a_killed_server() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANING], env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == 2
        assert server.stdout.readline() == "ready\n"
        assert all(map(is_alive, pids))
        server.kill()
    wait_until(lambda: not any(map(is_alive, pids)))
