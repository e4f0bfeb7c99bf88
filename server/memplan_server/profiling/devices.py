"""The devices that jobs can be measured on, and whether they are free, by NVML.

    gpus = Gpus(nvml, catalog)
    for device in gpus.devices():
        gpus.obstacle(device)           # why it cannot be used now; "" when it can

Known limitations: NVML numbers GPUs by PCI bus, CUDA only with CUDA_DEVICE_ORDER=PCI_BUS_ID: where
a machine has several kinds, name them in CUDA_VISIBLE_DEVICES by UUID. Of time slicing NVML
tells nothing: it shows in other processes, or in memory that is used by nobody who is listed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memplan.types import DeviceType
from memplan_server.errors import UnknownName
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.inventory import instances

__all__ = ["Device", "Gpus", "processor"]

log = logging.getLogger(__name__)

_MIB = 1 << 20
UNKNOWN_USE_BYTES = 512 * _MIB
"""Memory in use above which somebody is there although no process is listed; an idle GPU has some
megabytes in use."""
OLD_DRIVER_BYTES = 1024 * _MIB
"""The same where the driver counts its own share as used."""
MPS_SERVER = "nvidia-cuda-mps-server"


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Something to measure on."""

    type: DeviceType
    name: str
    """As the driver gives it; the processor's for the CPU."""
    uuid: str = ""
    """`GPU-...` or `MIG-...`; "" for the CPU."""
    gpu_type: str = ""
    """Name in the catalog; "" where it is not there."""


class Gpus:
    """The GPUs and MIG instances that CUDA_VISIBLE_DEVICES leaves to this process."""

    def __init__(
        self, nvml: Any, catalog: GpuCatalog, environment: Mapping[str, str] = os.environ
    ) -> None:
        """`nvml` is pynvml, initialised, or None where there is no driver."""
        self._nvml = nvml
        self._catalog = catalog
        self._environment = environment

    def devices(self) -> tuple[Device, ...]:
        """All that can be measured on; none where PyTorch is built without CUDA."""
        if self._nvml is None or not _torch_has_cuda():
            return ()
        try:
            return tuple(self._device(handle) for handle in self._visible())
        except self._nvml.NVMLError as error:
            log.warning("the GPUs could not be read: %s", error)
            return ()

    def obstacle(self, device: Device) -> str:
        """Why nothing can be measured on it now, in a sentence; "" when it is free.

        Processes of this server are not there at that time: any process is somebody else's.
        """
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(device.uuid)
            if self._answer("nvmlDeviceGetComputeMode", handle) == nvml.NVML_COMPUTEMODE_PROHIBITED:
                return f"The compute mode of {device.name} forbids to use it."
            others = self._others(handle)
            if others:
                return f"{device.name} is used by {_processes(others)}."
            used, least = self._used(handle)
        except nvml.NVMLError as error:
            return f"The state of {device.name} could not be read: {error}."
        if used > least:
            return f"{device.name} is used by others: {used / _MIB:,.0f} MiB are taken."
        return ""

    def used_bytes(self, device: Device) -> int:
        """Memory in use on it, by whom ever; 0 where it cannot be read."""
        try:
            return self._used(self._nvml.nvmlDeviceGetHandleByUUID(device.uuid))[0]
        except self._nvml.NVMLError:
            return 0

    def notes(self, device: Device) -> tuple[str, ...]:
        """In what way it is or may be shared, which spoils figures, in sentences."""
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(device.uuid)
            others = self._others(handle)
        except nvml.NVMLError as error:
            return (f"Whether the GPU was shared could not be read: {error}.",)
        notes = []
        if others:
            notes.append(
                f"{_processes(others, capital=True)} used the GPU meanwhile: times are those of a "
                "shared GPU, and memory may have been short."
            )
        if self._has_mps(handle):
            notes.append(
                "MPS is on: processes share the GPU, and context and times are not its own."
            )
        vgpu = getattr(nvml, "NVML_GPU_VIRTUALIZATION_MODE_VGPU", None)
        mode = self._answer("nvmlDeviceGetVirtualizationMode", handle)
        if vgpu is not None and mode == vgpu:
            notes.append("It is a virtual GPU: times depend on who else has a share of it.")
        return tuple(notes)

    def _device(self, handle: Any) -> Device:
        name = str(self._nvml.nvmlDeviceGetName(handle))
        try:
            gpu_type = self._catalog.get(name).name
        except UnknownName:
            gpu_type = ""
        uuid = str(self._nvml.nvmlDeviceGetUUID(handle))
        return Device(type=DeviceType.CUDA, name=name, uuid=uuid, gpu_type=gpu_type)

    def _visible(self) -> Iterator[Any]:
        """As CUDA has it: entries up to the first that names nothing."""
        listed = self._environment.get("CUDA_VISIBLE_DEVICES")
        count = self._nvml.nvmlDeviceGetCount()
        entries = map(str, range(count)) if listed is None else map(str.strip, listed.split(","))
        for entry in entries:
            handle = self._named(entry, count)
            if handle is None:
                return
            yield from instances(self._nvml, handle)

    def _named(self, entry: str, count: int) -> Any:
        if entry.isdecimal():
            found = int(entry) < count
            return self._nvml.nvmlDeviceGetHandleByIndex(int(entry)) if found else None
        if entry.startswith("MIG-"):
            return self._nvml.nvmlDeviceGetHandleByUUID(entry)
        for index in range(count if entry.startswith("GPU-") else 0):  # CUDA takes abbreviations
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            if str(self._nvml.nvmlDeviceGetUUID(handle)).startswith(entry):
                return handle
        return None

    def _others(self, handle: Any) -> list[int]:
        found = self._answer("nvmlDeviceGetComputeRunningProcesses", handle) or ()
        return [p.pid for p in found if not self._is_mps(p.pid)]

    def _has_mps(self, handle: Any) -> bool:
        found = self._answer("nvmlDeviceGetComputeRunningProcesses", handle) or ()
        clients = self._answer("nvmlDeviceGetMPSComputeRunningProcesses", handle)
        return bool(clients) or any(self._is_mps(p.pid) for p in found)

    def _is_mps(self, pid: int) -> bool:
        name = self._answer("nvmlSystemGetProcessName", pid) or ""
        return Path(str(name)).name.startswith(MPS_SERVER)

    def _used(self, handle: Any) -> tuple[int, int]:
        """Bytes in use, and how many of them mean nothing."""
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        except (AttributeError, nvml.NVMLError):
            return int(nvml.nvmlDeviceGetMemoryInfo(handle).used), OLD_DRIVER_BYTES
        return int(memory.used), UNKNOWN_USE_BYTES

    def _answer(self, function: str, argument: Any) -> Any:
        """What NVML answers; None where this driver or device does not."""
        try:
            return getattr(self._nvml, function)(argument)
        except (AttributeError, self._nvml.NVMLError):
            return None


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _processes(pids: list[int], *, capital: bool = False) -> str:
    text = f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes of others"
    return text.capitalize() if capital else text


def _torch_has_cuda() -> bool:
    """By its version, as it is not imported here; builds of unknown names are tried."""
    try:
        return not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
