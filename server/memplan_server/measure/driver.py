"""What the driver says of a GPU and of this process on it, by NVML. Imports no torch.

    driver = Driver.first_visible()         # before CUDA starts: remembers what is in use
    driver.usage().device_used_bytes

Known limitations: with several kinds of GPU in a machine, CUDA's order may differ from NVML's;
CUDA_VISIBLE_DEVICES names one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

__all__ = ["Driver", "Usage"]

_PROCESS, _DIFFERENCE = "nvml-process", "difference"


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Memory in use at a moment, bytes."""

    driver_used_bytes: int
    """NVML's total less free: by whom ever, the driver's own included."""
    driver_reserved_bytes: int | None
    """Of that, what the driver keeps for itself and nvidia-smi leaves out; None: not told."""
    device_used_bytes: int
    """Of this process."""
    source: str
    """How `device_used_bytes` was found: `nvml-process` or `difference`."""


class Driver:
    """NVML's view of one GPU or MIG instance."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._before = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)

    @classmethod
    def first_visible(cls) -> Driver | None:
        """The GPU that CUDA will call device 0; None where NVML is absent or knows none."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            return cls(pynvml, _handle(pynvml))
        except pynvml.NVMLError:
            return None

    @property
    def name(self) -> str:
        """`NVIDIA A100-SXM4-40GB`, followed by `MIG 3g.20gb` for an instance."""
        return str(self._nvml.nvmlDeviceGetName(self._handle))

    @property
    def uuid(self) -> str:
        """`GPU-...` or `MIG-...`."""
        return str(self._nvml.nvmlDeviceGetUUID(self._handle))

    @property
    def version(self) -> str:
        """Of the driver."""
        return str(self._nvml.nvmlSystemGetDriverVersion())

    @property
    def total_bytes(self) -> int:
        """What nvidia-smi shows as total."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).total)

    def usage(self) -> Usage:
        """Now."""
        used = int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        own = self._of_this_process()
        return Usage(
            driver_used_bytes=used,
            driver_reserved_bytes=self._reserved(),
            device_used_bytes=used - self._before if own is None else own,
            source=_DIFFERENCE if own is None else _PROCESS,
        )

    def _of_this_process(self) -> int | None:
        """In a container NVML may know the process by another number, or tell no memory."""
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        own = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        return int(own[0]) if own and own[0] else None

    def _reserved(self) -> int | None:
        try:
            version = self._nvml.nvmlMemory_v2
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=version).reserved)
        except (AttributeError, self._nvml.NVMLError):
            return None


def _handle(nvml: Any) -> Any:
    """By CUDA_VISIBLE_DEVICES, else the first GPU; its first instance where it is in MIG mode."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    handle = nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdecimal() else 0)
    try:
        in_mig_mode = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:
        in_mig_mode = False
    return nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0) if in_mig_mode else handle
