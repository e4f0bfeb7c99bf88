"""What of a CUDA run can be tested without a GPU: the driver's answers, errors, names, marks."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memplan.types import AllocatorSettings
from memplan_server.measure import cuda
from memplan_server.measure.driver import Driver, _handle
from memplan_server.measure.events import Section
from memplan_server.timeline import Phase

MIB = 1 << 20


class NvmlError(Exception):
    """As pynvml.NVMLError."""


class Nvml:
    """An NVML with one GPU, in MIG mode or not."""

    NVMLError = NvmlError
    NVML_DEVICE_MIG_ENABLE = 1
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(self, *, mig: bool = False) -> None:
        self.mig = mig
        self.used = 600 * MIB
        self.processes: list[SimpleNamespace] | None = []

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int = 0) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=self.used, total=80_000 * MIB, reserved=500 * MIB)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        if self.processes is None:
            raise NvmlError
        return self.processes

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"gpu {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        if not self.mig:
            raise NvmlError
        return [1, 1]

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        return f"{handle}, instance {index}"


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def test_the_driver_s_figure_for_the_process() -> None:
    nvml = Nvml()
    driver = Driver(nvml, "gpu 0")
    nvml.used = 5_000 * MIB
    nvml.processes = [process(1, 9_000 * MIB), process(os.getpid(), 4_300 * MIB)]
    usage = driver.usage()
    assert usage.device_used_bytes == 4_300 * MIB
    assert usage.source == "nvml-process"
    assert usage.driver_used_bytes == 5_000 * MIB
    assert usage.driver_reserved_bytes == 500 * MIB


@pytest.mark.parametrize("told", [[], [process(os.getpid(), None)], [process(1, 7)], None])
def test_where_it_tells_none_the_difference(told: list[SimpleNamespace] | None) -> None:
    nvml = Nvml()
    driver = Driver(nvml, "gpu 0")
    nvml.used, nvml.processes = 5_000 * MIB, told
    usage = driver.usage()
    assert usage.device_used_bytes == 4_400 * MIB
    assert usage.source == "difference"


@pytest.mark.parametrize(
    ("visible", "mig", "handle"),
    [
        (None, False, "gpu 0"),
        (None, True, "gpu 0, instance 0"),
        ("2,0", False, "gpu 2"),
        ("GPU-ab,GPU-cd", False, "GPU-ab"),
        ("MIG-ef", True, "MIG-ef"),
    ],
)
def test_the_device_that_cuda_calls_0(
    visible: str | None, mig: bool, handle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _handle(Nvml(mig=mig)) == handle


@pytest.mark.parametrize(
    ("error", "is_one", "asked"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has"),
            True,
            3 << 29,
        ),
        (RuntimeError("CUDA error: out of memory"), True, None),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, None),
        (RuntimeError("CUDA error: device-side assert triggered"), False, None),
        (ValueError("CUDA out of memory"), False, None),
    ],
)
def test_errors_that_mean_out_of_memory(error: Exception, is_one: bool, asked: int | None) -> None:
    assert cuda.is_out_of_memory(error) is is_one
    assert cuda.asked_for(error) == asked


def test_settings_as_pytorch_reads_them() -> None:
    settings = AllocatorSettings(expandable_segments=True, garbage_collection_threshold=0.8)
    conf = cuda.allocator_conf(settings)
    assert conf == "expandable_segments:True,garbage_collection_threshold:0.8"


def test_operators_are_noted_by_the_count_of_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([(3, 0), (5, 0), (5, 1), (6, 1)])
    monkeypatch.setattr(cuda, "_counts", lambda: next(counts))
    with cuda.OperatorNames() as names:
        tensor = torch.ones(2)
        torch.relu(tensor)
    assert names.names(range(7)) == [*["other"] * 3, "ones", "ones", "relu", "other"]


def test_phases_are_marked_by_the_count_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[Any] = [(0, 0), (7, 2)]
    monkeypatch.setattr(cuda, "_counts", lambda: counts.pop(0))
    marks = cuda.PhaseMarks()
    marks.enter(Phase.SETUP, 0)
    marks.enter(Phase.FORWARD, 0)
    assert marks.sections == [Section(0, Phase.SETUP, 0), Section(9, Phase.FORWARD, 0)]
