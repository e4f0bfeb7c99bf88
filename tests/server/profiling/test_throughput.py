"""Batch sizes measured in turn, on a made-up device and without a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import pytest

from memplan.types import CatalogModel, MeasuredProfile, Model, ProfileMemoryResponse, TrainingJob
from memplan_server.errors import MemplanError, TimeLimitExceeded, WorkerFailure
from memplan_server.jobs import normalize
from memplan_server.measure.measurement import Gpu, Measurement, OutOfMemory, StepSeconds
from memplan_server.measure.profiled import Profiled
from memplan_server.profiling import Asked
from memplan_server.profiling.throughput import Throughput

ROOM = 40
JOB = normalize(TrainingJob(model=Model(catalog=CatalogModel(name="fake/ok")), micro_batch_size=4))
Run = Callable[[Asked], Generator[ProfileMemoryResponse, None, Profiled]]


def measured(asked: Asked) -> Generator[ProfileMemoryResponse, None, Profiled]:
    """One second a step whatever the batch size; room for `ROOM` samples."""
    yield ProfileMemoryResponse()
    size = asked.job.micro_batch_size
    failed = OutOfMemory(requested_bytes=None, phase="forward", step=0) if size > ROOM else None
    return Profiled(
        measurement=Measurement(
            device_type="cuda",
            gpu=Gpu(name="made up"),
            library_versions={},
            peak_allocated_bytes=size,
            peak_reserved_bytes=size,
            out_of_memory=failed,
            step_seconds=StepSeconds(median=1.0, p10=1.0, p90=1.0),
        ),
        micro_batch_size=size,
        warmup_step_count=1,
        step_count=1,
        memory_limit_bytes=77,
    )


def result(
    run: Run = measured, start: Callable[[int], int] = lambda room: 36, seconds: float = 1e6
) -> tuple[Throughput, MeasuredProfile]:
    throughput = Throughput(
        asked=Asked(job=JOB), deadline=time.monotonic() + seconds, run=run, start=start
    )
    assert all(isinstance(event, ProfileMemoryResponse) for event in throughput.measure())
    return throughput, throughput.added_to(MeasuredProfile())


def test_the_search_starts_from_the_estimate_within_what_is_free() -> None:
    asked: list[int] = []
    _, profile = result(start=lambda room: asked.append(room) or 36)
    assert asked == [77]
    sizes = [point.micro_batch_size for point in profile.throughput]
    assert sizes == sorted(sizes)
    assert {4, 32} <= set(sizes)  # the job's own, and the estimate as a multiple of eight
    assert profile.largest_micro_batch_size == ROOM
    assert profile.fastest_micro_batch_size == ROOM
    assert next(p.samples_per_second for p in profile.throughput if not p.out_of_memory) == 4
    assert all(p.samples_per_second == 0 for p in profile.throughput if p.out_of_memory)


def test_without_an_estimate_it_starts_from_the_job() -> None:
    def fails(room: int) -> int:
        raise WorkerFailure("no")

    _, profile = result(start=fails)
    assert profile.largest_micro_batch_size >= 5


def test_a_run_that_takes_too_long_ends_the_search_only() -> None:
    def slow(asked: Asked) -> Generator[ProfileMemoryResponse, None, Profiled]:
        if asked.job.micro_batch_size > 4:
            raise TimeLimitExceeded("slow")
        return (yield from measured(asked))

    throughput, profile = result(run=slow)
    assert throughput.cut_short
    assert [point.micro_batch_size for point in profile.throughput] == [4]
    assert "time limit" in profile.notes[-1]


def test_the_first_run_must_succeed() -> None:
    def fails(asked: Asked) -> Generator[ProfileMemoryResponse, None, Profiled]:
        raise TimeLimitExceeded("slow")
        yield

    with pytest.raises(MemplanError):
        result(run=fails)
