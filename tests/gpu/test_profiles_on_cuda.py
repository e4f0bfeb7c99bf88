"""Profiles on a CUDA GPU, through a real server.

The GPU must have nothing else to do; after every test its memory is back where it was.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from test_measured import BERT, JOBS

from memplan.types import Optimizer, OptimizerType, Precision, TrainingJob
from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan.wire import to_proto
from memplan_server.measure.driver import Driver

ENOUGH_S = 280.0
MIB = 1 << 20
NOISE_BYTES = 64 * MIB

VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd": {"optimizer": Optimizer(type=OptimizerType.SGD, momentum=0.9)},
    "bf16": {"precision": Precision.AMP_BF16},
    "large": {"micro_batch_size": 64},
}
TWENTY = {
    f"{name}, {variant}": replace(job, **fields)
    for name, job in JOBS.items()
    if name != "a rank"
    for variant, fields in VARIANTS.items()
}
"""Five models, four ways."""


@pytest.fixture(autouse=True)
def memory_is_given_back() -> Iterator[None]:
    driver = Driver.first_visible()
    assert driver is not None
    before = driver.usage().driver_used_bytes
    yield
    deadline = time.monotonic() + 20
    while driver.usage().driver_used_bytes > before + NOISE_BYTES:
        assert time.monotonic() < deadline, "the GPU's memory is not given back"
        time.sleep(0.2)


def request(job: TrainingJob, **fields: Any) -> Any:
    seconds = fields.pop("time_limit_s", 120)
    made = pb.ProfileMemoryRequest(
        job=to_proto(job), device_type=pb.DEVICE_TYPE_CUDA, wait_for_gpu=True, **fields
    )
    made.time_limit.FromSeconds(seconds)
    return made


def profile(planner: MemoryPlannerStub, job: TrainingJob, **fields: Any) -> Any:
    *_, last = planner.ProfileMemory(request(job, **fields), timeout=ENOUGH_S)
    return last.profile


@pytest.mark.parametrize("name", TWENTY)
def test_twenty_jobs_measured_against_estimated(planner: MemoryPlannerStub, name: str) -> None:
    """Run with -s for the table."""
    found = profile(planner, TWENTY[name])
    assert not found.out_of_memory
    estimate = planner.EstimateMemory(
        pb.EstimateMemoryRequest(job=found.job, gpu_type=found.gpu_type), timeout=ENOUGH_S
    ).estimate
    print(
        f"\n{name:24}"
        f" allocated {found.peak_allocated_bytes / MIB:9,.1f}"
        f" {estimate.peak_allocated_bytes / MIB:9,.1f}"
        f" reserved {found.peak_reserved_bytes / MIB:9,.1f}"
        f" {estimate.peak_reserved_bytes / MIB:9,.1f}"
        f" device-used {found.device_used_bytes / MIB:9,.1f}"
        f" {estimate.device_used_bytes / MIB:9,.1f} MiB"
    )
    assert estimate.lower_bound_bytes <= found.device_used_bytes <= estimate.upper_bound_bytes


def test_what_a_profile_has_on_a_gpu(planner: MemoryPlannerStub) -> None:
    found = profile(planner, BERT, step_count=5)
    assert found.device_type == pb.DEVICE_TYPE_CUDA
    assert found.step_count == 5
    assert found.library_versions["driver"]
    assert found.context_before_bytes > 0
    assert found.context_after_bytes >= found.context_before_bytes
    assert found.device_used_bytes >= found.peak_reserved_bytes >= found.peak_allocated_bytes > 0
    assert found.samples_per_second > 0
    assert found.step_time_p10.ToNanoseconds() <= found.step_time.ToNanoseconds()
    assert {p.phase for p in found.phases} == {1, 2, 3}
    assert max(p.peak_allocated_bytes for p in found.phases) == found.peak_allocated_bytes
    assert 0 < len(found.curve) <= 512
    # the curve has sizes asked for, blocks may be larger
    top = max(p.allocated_bytes for p in found.curve)
    assert top == pytest.approx(found.peak_allocated_bytes, rel=0.05)


def test_out_of_memory_at_a_limit_is_a_result(planner: MemoryPlannerStub) -> None:
    whole = profile(planner, BERT)
    limit = whole.context_before_bytes + whole.peak_reserved_bytes // 2
    found = profile(planner, BERT, memory_limit_bytes=limit)
    assert found.out_of_memory
    assert found.requested_bytes > 0
    assert found.memory_limit_bytes == limit
    assert found.peak_reserved_bytes <= whole.peak_reserved_bytes // 2


def test_a_caller_that_goes_away_gives_the_gpu_back(planner: MemoryPlannerStub) -> None:
    stream = planner.ProfileMemory(request(BERT, step_count=100), timeout=ENOUGH_S)
    next(e for e in stream if e.progress.stage == pb.PROFILE_STAGE_WARMING_UP)
    stream.cancel()


def test_a_killed_process_gives_the_gpu_back(planner: MemoryPlannerStub) -> None:
    stream = planner.ProfileMemory(request(BERT, step_count=100), timeout=ENOUGH_S)
    next(e for e in stream if e.progress.stage == pb.PROFILE_STAGE_WARMING_UP)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if b"child_process" in path.read_bytes() and int(path.parent.name) != os.getpid():
            os.kill(int(path.parent.name), signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as raised:
        list(stream)
    assert raised.value.code() is grpc.StatusCode.ABORTED


def test_a_time_limit_gives_the_gpu_back(planner: MemoryPlannerStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        profile(planner, BERT, time_limit_s=1)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_batch_sizes_within_a_limit(planner: MemoryPlannerStub) -> None:
    small = profile(planner, BERT)
    limit = small.context_after_bytes + 8 * small.peak_reserved_bytes
    found = profile(planner, BERT, find_batch_size=True, memory_limit_bytes=limit, time_limit_s=250)
    ran = [p for p in found.throughput if not p.out_of_memory]
    assert found.largest_micro_batch_size == max(p.micro_batch_size for p in ran)
    assert found.largest_micro_batch_size > BERT.micro_batch_size
    best = max(ran, key=lambda p: p.samples_per_second)
    assert found.fastest_micro_batch_size == best.micro_batch_size


def test_profiles_in_a_row_leave_the_gpu_as_it_was(planner: MemoryPlannerStub) -> None:
    for _ in range(5):
        profile(planner, BERT, step_count=1, warmup_step_count=1)
