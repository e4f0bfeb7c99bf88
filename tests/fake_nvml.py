"""An NVML with GPUs that do what a test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

MIB = 1 << 20


class NvmlError(Exception):
    """As pynvml.NVMLError."""


@dataclass
class Gpu:
    """One GPU, or a MIG instance."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    used: int = 4 * MIB
    processes: list[int] = field(default_factory=list)
    instances: list[Gpu | None] = field(default_factory=list)
    compute_mode: int = 0
    virtual: bool = False


class Nvml:
    """The functions of pynvml that are used."""

    NVMLError = NvmlError
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_COMPUTEMODE_PROHIBITED = 2
    NVML_GPU_VIRTUALIZATION_MODE_VGPU = 2
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(self, *gpus: Gpu, names: dict[int, str] | None = None) -> None:
        self.gpus = gpus
        self.names = names or {}

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Gpu:  # noqa: N802
        for gpu in self.gpus:
            for found in (gpu, *gpu.instances):
                if found is not None and found.uuid == uuid:
                    return found
        raise NvmlError(f"no {uuid}")

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str:  # noqa: N802
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: Gpu) -> str:  # noqa: N802
        return gpu.name

    def nvmlDeviceGetMigMode(self, gpu: Gpu) -> list[int]:  # noqa: N802
        if gpu.uuid.startswith("MIG"):
            raise NvmlError
        return [int(bool(gpu.instances))] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Gpu) -> int:  # noqa: N802
        return len(gpu.instances)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Gpu, index: int) -> Gpu:  # noqa: N802
        found = gpu.instances[index]
        if found is None:
            raise NvmlError("no instance")
        return found

    def nvmlDeviceGetComputeMode(self, gpu: Gpu) -> int:  # noqa: N802
        return gpu.compute_mode

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: Gpu) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in gpu.processes]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, gpu: Gpu) -> list[Any]:  # noqa: N802
        raise NvmlError("not supported")

    def nvmlDeviceGetVirtualizationMode(self, gpu: Gpu) -> int:  # noqa: N802
        return 2 if gpu.virtual else 0

    def nvmlSystemGetProcessName(self, pid: int) -> str:  # noqa: N802
        return self.names.get(pid, f"/usr/bin/process-{pid}")

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu, version: int = 0) -> Any:  # noqa: N802
        return SimpleNamespace(used=gpu.used, total=80_000 * MIB, free=80_000 * MIB - gpu.used)
