"""Jobs really executed on the CPU of a real server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from serving import wait_until
from test_profile_memory import processes
from torch import nn

from memplan import capture_job
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


class PerSample(nn.Module):
    """Its graph holds for one batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(512, 512)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.layer(x[i]) for i in range(x.shape[0])])


def captured(module: nn.Module, x: torch.Tensor, **options: Any) -> TrainingJob:
    return capture_job(module, x, torch.optim.Adam(module.parameters()), **options)


CAPTURED = {
    "a perceptron": captured(
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 2048), nn.ReLU(), nn.Linear(2048, 2048)),
        torch.empty(2, 3, 32, 32),
        loss=nn.CrossEntropyLoss(),
        targets=torch.zeros(2, dtype=torch.int64),
    ),
    "an embedding": captured(
        nn.Sequential(nn.Embedding(4096, 256), nn.Flatten(), nn.Linear(2048, 1024)),
        torch.zeros(4, 8, dtype=torch.int64),
    ),
    "one batch size": captured(PerSample(), torch.empty(5, 512)),
}


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
    assert found.peak_allocated_bytes == pytest.approx(without_workspace(estimate), rel=0.01)


def without_workspace(answer: Any) -> int:
    """Peak allocated bytes of an estimate, but for the workspace of cuBLAS."""
    estimate = answer.estimate
    return int(estimate.peak_allocated_bytes - estimate.breakdown.workspace_bytes)


@pytest.mark.parametrize("name", CAPTURED)
def test_a_captured_module_is_measured(planner: MemoryPlannerStub, name: str) -> None:
    request = asked()
    request.job.CopyFrom(to_proto(CAPTURED[name]))
    *_, last = planner.ProfileMemory(request, timeout=ENOUGH_S)
    found = last.profile
    assert found.step_count == 2
    assert found.micro_batch_size == CAPTURED[name].micro_batch_size
    estimate = planner.EstimateMemory(pb.EstimateMemoryRequest(job=found.job), timeout=ENOUGH_S)
    assert estimate.profile.profile_id == found.profile_id != ""
    assert found.peak_allocated_bytes == pytest.approx(without_workspace(estimate), rel=0.01)


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
