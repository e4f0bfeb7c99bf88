"""Jobs really executed on the CPU of a real server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from serving import wait_until
from test_profile_memory import processes

from memplan.types import (
    Activation,
    Flatten,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Model,
    Optimizer,
    OptimizerType,
    TrainingJob,
)
from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan.wire import to_proto

ENOUGH_S = 200.0
JOB = TrainingJob(
    model=Model(
        layer_stack=LayerStack(
            layers=(
                Layer(flatten=Flatten()),
                Layer(linear=Linear(out_features=2048)),
                Layer(activation=Activation()),
                Layer(linear=Linear(out_features=2048)),
            )
        )
    ),
    inputs=(InputTensor(shape=(3, 32, 32)),),
    optimizer=Optimizer(type=OptimizerType.ADAM),
    micro_batch_size=2,
)


def asked(**fields: Any) -> Any:
    return pb.ProfileMemoryRequest(
        job=to_proto(JOB), device_type=pb.DEVICE_TYPE_CPU, step_count=2, **fields
    )


def test_a_job_is_measured_and_agrees_with_its_estimate(planner: MemoryPlannerStub) -> None:
    *progress, last = planner.ProfileMemory(asked(), timeout=ENOUGH_S)
    stages = {event.progress.stage for event in progress}
    assert {pb.PROFILE_STAGE_BUILDING, pb.PROFILE_STAGE_MEASURING} <= stages
    found = last.profile
    assert found.step_count == 2
    assert 0 < len(found.curve) <= 512
    assert found.library_versions["torch"]
    estimate = planner.EstimateMemory(pb.EstimateMemoryRequest(job=found.job), timeout=ENOUGH_S)
    assert estimate.profile.profile_id == found.profile_id != ""
    # cuBLAS's workspace, of which a CPU has none, is the whole difference
    workspace = estimate.estimate.breakdown.workspace_bytes
    expected = estimate.estimate.peak_allocated_bytes - workspace
    assert found.peak_allocated_bytes == pytest.approx(expected, rel=0.01)


def test_a_job_that_cannot_run_is_the_callers_fault(planner: MemoryPlannerStub) -> None:
    request = asked()
    request.job.inputs[0].shape[:] = [3, 0]
    with pytest.raises(grpc.RpcError) as raised:
        list(planner.ProfileMemory(request, timeout=ENOUGH_S))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_profiles_leak_no_process_file_or_memory(planner: MemoryPlannerStub) -> None:
    list(planner.ProfileMemory(asked(), timeout=ENOUGH_S))
    wait_until(lambda: not processes())
    files, memory = len(os.listdir("/proc/self/fd")), resident_bytes()
    for _ in range(50):
        *_, last = planner.ProfileMemory(asked(), timeout=ENOUGH_S)
        assert last.profile.peak_allocated_bytes > 0
    wait_until(lambda: not processes())
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    assert resident_bytes() - memory < 64 << 20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
