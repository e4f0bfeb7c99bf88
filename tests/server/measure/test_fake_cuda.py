"""A run on CUDA as far as it goes without a GPU: tensors stay on the host, PyTorch's functions for
CUDA are stand-ins with the signatures of the installed PyTorch.

What only a GPU can tell is in tests/gpu.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, create_autospec

import pytest
import torch

from memplan.types import (
    AllocatorSettings,
    Flatten,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Model,
    Precision,
    TrainingJob,
)
from memplan_server.jobs import normalize
from memplan_server.measure import cuda
from memplan_server.measure import run as running
from memplan_server.measure.driver import Driver, Usage
from memplan_server.measure.request import Request
from memplan_server.timeline import Phase

MIB = 1 << 20
FREE, TOTAL = 79_000 * MIB, 80_000 * MIB
USAGE = Usage(
    driver_used_bytes=1_000 * MIB,
    driver_reserved_bytes=400 * MIB,
    device_used_bytes=456 * MIB,
    source="nvml-process",
)
JOB = normalize(
    TrainingJob(
        model=Model(
            layer_stack=LayerStack(
                layers=(Layer(flatten=Flatten()), Layer(linear=Linear(out_features=10)))
            )
        ),
        inputs=(InputTensor(shape=(3, 8, 8)),),
        micro_batch_size=4,
    )
)
HISTORY = [
    {"action": "segment_alloc", "addr": 1, "size": 2 * MIB, "stream": 0},
    {"action": "alloc", "addr": 1, "size": 4096, "stream": 0},
    {"action": "free_requested", "addr": 1, "size": 4096, "stream": 0},
    {"action": "free_completed", "addr": 1, "size": 4096, "stream": 0},
    {"action": "snapshot", "addr": 0, "size": 0, "stream": 0},
]


class FakeTorch:
    """PyTorch, but for what needs a GPU."""

    def __init__(self) -> None:
        real = torch.cuda
        stats = {"allocated_bytes.all.peak": 5 * MIB, "reserved_bytes.all.peak": 6 * MIB}
        answers: dict[str, Any] = {
            "init": None,
            "set_device": None,
            "synchronize": None,
            "reset_peak_memory_stats": None,
            "set_per_process_memory_fraction": None,
            "mem_get_info": (FREE, TOTAL),
            "memory_reserved": 6 * MIB,
            "memory_stats": stats | {"num_alloc_retries": 0},
            "get_device_properties": SimpleNamespace(
                name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132
            ),
        }
        fakes = {
            name: create_autospec(getattr(real, name), return_value=answer)
            for name, answer in answers.items()
        }
        self.record = create_autospec(real.memory._record_memory_history_impl)
        memory = SimpleNamespace(
            _record_memory_history=self.record,
            _snapshot=create_autospec(
                real.memory._snapshot, return_value={"device_traces": [HISTORY]}
            ),
        )
        self.cuda = SimpleNamespace(**fakes, memory=memory)
        self.settings = Mock()
        counts = {"allocation": {"all": {"allocated": 1, "freed": 1}}}
        self._C = SimpleNamespace(
            _accelerator_setAllocatorSettings=self.settings, _cuda_memoryStats=lambda _: counts
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, *described: object) -> torch.device:
        return torch.device("cpu")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTorch:
    made = FakeTorch()
    monkeypatch.setattr(cuda, "torch", made)
    monkeypatch.setattr(running, "torch", made)
    driver = Mock(spec=Driver, total_bytes=TOTAL + 500 * MIB, version="580.1")
    driver.name = "NVIDIA H100 80GB HBM3"
    driver.usage.return_value = USAGE
    monkeypatch.setattr(Driver, "first_visible", lambda: driver)
    return made


def test_the_functions_are_there() -> None:
    """Those that are private, and may go from one release to another."""
    assert hasattr(torch._C, "_accelerator_setAllocatorSettings")
    parameters = inspect.signature(torch.cuda.memory._record_memory_history_impl).parameters
    assert {"max_entries", "context", "stacks"} <= set(parameters)


def test_a_measurement(fake: FakeTorch) -> None:
    request = Request(job=JOB, device_type="cuda", warmup_steps=1, steps=2)
    found = running.run(request).measurement
    assert found.out_of_memory is None
    assert (found.steps, found.optimizer_steps) == (3, 3)
    assert found.peak_allocated_bytes == 5 * MIB
    assert found.peak_reserved_bytes == 6 * MIB
    assert found.context_before_bytes == found.context_after_bytes == 450 * MIB
    assert found.device_used_bytes == 456 * MIB
    assert (found.gpu.compute_capability, found.gpu.usable_bytes) == ("9.0", TOTAL)
    assert found.gpu.driver_version == "580.1"
    assert not fake.record.called
    assert not fake.settings.called


def test_with_its_history(fake: FakeTorch) -> None:
    job = replace(JOB, allocator=AllocatorSettings(expandable_segments=True))
    request = Request(job=job, device_type="cuda", history=True, operators=True)
    outcome = running.run(request)
    fake.settings.assert_called_once_with("expandable_segments:True")
    assert fake.record.called
    assert outcome.seen.history is not None
    assert outcome.seen.history.peak_reserved_bytes == 2 * MIB
    assert outcome.seen.events is not None
    assert outcome.seen.events.sizes == [4096]
    assert max(p.peak_allocated_bytes for p in outcome.phases) == 5 * MIB


def test_without_nvml(fake: FakeTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "first_visible", lambda: None)
    found = running.run(Request(job=JOB, device_type="cuda")).measurement
    assert found.device_used_bytes is None
    assert found.context_before_bytes is None
    assert found.gpu.name == "NVIDIA H100 80GB HBM3"
    assert found.peak_reserved_bytes == 6 * MIB


def test_a_limit_includes_the_context(fake: FakeTorch) -> None:
    request = Request(job=JOB, device_type="cuda", memory_limit_bytes=10_450 * MIB)
    assert running.run(request).memory_limit_bytes == 10_450 * MIB
    (share, _), _ = fake.cuda.set_per_process_memory_fraction.call_args
    assert share == pytest.approx(10_000 / 80_000)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."), 5 << 29),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), None),
    ],
)
def test_running_out_of_memory(
    fake: FakeTorch, monkeypatch: pytest.MonkeyPatch, error: Exception, asked: int | None
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch.Tensor, "backward", full)
    found = running.run(Request(job=JOB, device_type="cuda")).measurement
    assert found.out_of_memory is not None
    assert found.out_of_memory.requested_bytes == asked
    assert (found.out_of_memory.phase, found.out_of_memory.step) == (Phase.BACKWARD.name.lower(), 0)
    assert found.peak_reserved_bytes == 6 * MIB
    assert found.step_seconds is None


def test_half_precision_with_a_scaler(fake: FakeTorch) -> None:
    job = replace(JOB, precision=Precision.AMP_FP16)
    found = running.run(Request(job=job, device_type="cuda", steps=1)).measurement
    assert found.optimizer_steps == found.steps
