"""A real run on a CUDA GPU, watched through the caching allocator and the driver.

Runs in a process of its own that has not used CUDA before: the context is part of what is measured.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from memplan.types import AllocatorSettings, PhasePeak
from memplan_server.measure.curve import PHASES
from memplan_server.measure.driver import Driver
from memplan_server.measure.events import Events, Section
from memplan_server.measure.history import MOST_ENTRIES, read_snapshot
from memplan_server.measure.measurement import Gpu
from memplan_server.measure.watch import Seen, Watch
from memplan_server.timeline import Phase
from memplan_server.training import Unobserved

__all__ = [
    "CudaMeter",
    "OperatorNames",
    "PeakMarks",
    "PhaseMarks",
    "asked_for",
    "describe",
    "is_out_of_memory",
    "why_not_available",
]

_SIZE = re.compile(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LIBRARIES_OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)


class CudaMeter:
    """One GPU, device 0 of this process."""

    def __init__(self, settings: AllocatorSettings, memory_limit_bytes: int = 0) -> None:
        """Look at the GPU before CUDA is started. The limit includes the context; 0: none."""
        self.memory_limit_bytes = memory_limit_bytes
        """What the job may take; without a limit, what is free when CUDA has started."""
        self.device = torch.device("cuda", 0)
        self.driver = Driver.first_visible()
        self._settings = settings
        self._contexts: list[int | None] = []
        self._recording = False
        self._peaks = PeakMarks()

    def watch(self, *, history: bool, operators: bool) -> Watch:
        """`history` has the allocator write its history down; `operators` also whose it is."""
        self._recording = history or operators
        if not self._recording:
            return Watch(observer=Unobserved(), mode=contextlib.nullcontext(), seen=Seen)
        marks = self._peaks
        names = OperatorNames() if operators else None
        return Watch(
            observer=marks,
            mode=names or contextlib.nullcontext(),
            seen=lambda: self._seen(marks, names),
        )

    def _seen(self, marks: PhaseMarks, names: OperatorNames | None) -> Seen:
        self.synchronize()
        try:
            history = read_snapshot(torch.cuda.memory._snapshot())
        except ValueError as error:
            return Seen(lost=str(error))
        events = Events(
            events=history.events,
            sizes=history.sizes,
            operators=names.names(range(len(history.sizes))) if names else (),
            sections=marks.sections,
        )
        return Seen(events=events, history=history)

    def start(self) -> None:
        """Start CUDA."""
        if self._settings != AllocatorSettings():
            torch._C._accelerator_setAllocatorSettings(allocator_conf(self._settings))
        torch.cuda.init()
        torch.cuda.set_device(self.device)
        if self._recording:
            torch.cuda.memory._record_memory_history(
                max_entries=MOST_ENTRIES, context=None, stacks="python"
            )
        torch.cuda.reset_peak_memory_stats()
        self._limit_memory()

    def _limit_memory(self) -> None:
        """The allocator gets what the context leaves of the limit."""
        free, total = torch.cuda.mem_get_info()
        usage = self.driver.usage() if self.driver else None
        context = usage.device_used_bytes - torch.cuda.memory_reserved() if usage else 0
        if not self.memory_limit_bytes:
            self.memory_limit_bytes = free + context
            return
        share = max(0, self.memory_limit_bytes - context) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), self.device)

    def place(self, module: nn.Module) -> None:
        """Move the model to the GPU."""
        module.to(self.device)

    def synchronize(self) -> None:
        """Wait until the GPU is done."""
        torch.cuda.synchronize()

    def note_context(self) -> None:
        """What is used beyond the allocator's segments: before the first step, after the last."""
        self.synchronize()
        usage = self.driver.usage() if self.driver else None
        reserved = torch.cuda.memory_reserved()
        self._contexts.append(usage.device_used_bytes - reserved if usage else None)

    def peaks(self) -> tuple[int, int]:
        """Peak allocated and peak reserved bytes so far."""
        return self._peaks.overall()

    def phase_peaks(self) -> tuple[PhasePeak, ...]:
        """The peak in each phase of the step; empty where nobody looked."""
        return self._peaks.by_phase() if self._recording else ()

    def readings(self) -> dict[str, Any]:
        """The fields of a `Measurement` that are read off the device."""
        allocated, reserved = self.peaks()
        fields: dict[str, Any] = {
            "gpu": self.gpu(),
            "peak_allocated_bytes": allocated,
            "peak_reserved_bytes": reserved,
            "allocator_retries": torch.cuda.memory_stats()["num_alloc_retries"],
        }
        if self.driver is not None:
            usage = self.driver.usage()
            fields |= {
                "device_used_bytes": usage.device_used_bytes,
                "device_used_source": usage.source,
                "driver_used_bytes": usage.driver_used_bytes,
                "driver_reserved_bytes": usage.driver_reserved_bytes,
            }
        names = ("context_before_bytes", "context_after_bytes")
        return fields | dict(zip(names, self._contexts, strict=False))

    def gpu(self) -> Gpu:
        """What it is. Starts CUDA."""
        properties = torch.cuda.get_device_properties(self.device)
        _, usable = torch.cuda.mem_get_info()
        name = self.driver.name if self.driver else properties.name
        return Gpu(
            name=name,
            total_bytes=self.driver.total_bytes if self.driver else 0,
            usable_bytes=usable,
            compute_capability=f"{properties.major}.{properties.minor}",
            multiprocessor_count=properties.multi_processor_count,
            mig=" MIG " in f"{name} {properties.name} ",
            driver_version=self.driver.version if self.driver else "",
        )


def allocator_conf(settings: AllocatorSettings) -> str:
    """The settings as PYTORCH_CUDA_ALLOC_CONF has them."""
    given = {
        "expandable_segments": settings.expandable_segments,
        "roundup_power2_divisions": settings.roundup_power2_divisions,
        "max_split_size_mb": settings.max_split_size_mb,
        "garbage_collection_threshold": settings.garbage_collection_threshold,
    }
    return ",".join(f"{name}:{value}" for name, value in given.items() if value)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU had no room: said by PyTorch, or by a library of CUDA's."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(t in said for t in _LIBRARIES_OUT_OF_MEMORY)


def asked_for(error: BaseException) -> int | None:
    """How many bytes an out-of-memory error says were asked for, to the precision printed."""
    found = _SIZE.search(str(error))
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def _counts() -> tuple[int, int]:
    """Allocations made and frees asked for on device 0 since the process began."""
    counted = torch._C._cuda_memoryStats(0)["allocation"]["all"]
    return counted["allocated"], counted["freed"]


class PhaseMarks(Unobserved):
    """An observer that notes where in the allocator's history phases begin.

    It reads two counters a phase and disturbs nothing.
    """

    def __init__(self) -> None:
        self.sections: list[Section] = []

    def enter(self, phase: Phase, step: int) -> None:
        """From now on it is this phase of this training step."""
        self.sections.append(Section(sum(_counts()), phase, step))


class PeakMarks(PhaseMarks):
    """Notes the allocator's peaks in each phase besides: it reads its counters of peaks where a
    phase begins, and starts them again."""

    def __init__(self) -> None:
        super().__init__()
        self._phase = Phase.SETUP
        self._peaks: dict[Phase, tuple[int, int]] = {}

    def enter(self, phase: Phase, step: int) -> None:
        """From now on it is this phase of this training step."""
        self._fold()
        torch.cuda.reset_peak_memory_stats()
        self._phase = phase
        super().enter(phase, step)

    def overall(self) -> tuple[int, int]:
        """Peak allocated and reserved bytes from the beginning on."""
        self._fold()
        allocated, reserved = zip(*self._peaks.values(), strict=True)
        return max(allocated), max(reserved)

    def by_phase(self) -> tuple[PhasePeak, ...]:
        """The peak in each phase that there was, set-up left out."""
        self._fold()
        return tuple(
            PhasePeak(phase=PHASES[p], peak_allocated_bytes=a, peak_reserved_bytes=r)
            for p, (a, r) in sorted(self._peaks.items())
            if p is not Phase.SETUP
        )

    def _fold(self) -> None:
        stats = torch.cuda.memory_stats()
        now = stats["allocated_bytes.all.peak"], stats["reserved_bytes.all.peak"]
        before = self._peaks.get(self._phase, (0, 0))
        self._peaks[self._phase] = max(now[0], before[0]), max(now[1], before[1])


class OperatorNames(TorchDispatchMode):
    """Notes which operator made each allocation, by the allocator's own count.

    As dispatch modes hold on to arguments for a moment and keep autograd from adding gradients in
    place, the run is not quite the undisturbed one: names are carried over to that by alignment.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, _ = _counts()
        try:
            return func(*args, **(kwargs or {}))
        finally:
            after, _ = _counts()
            name = func._overloadpacket.__name__
            self._names.update((index, name) for index in range(before, after))

    def names(self, storages: Iterable[int]) -> list[str]:
        """The operator of each allocation by its number; "other" for those outside operators."""
        return [self._names.get(storage, "other") for storage in storages]


def describe() -> Gpu:
    """The GPU that jobs would run on."""
    return CudaMeter(AllocatorSettings()).gpu()


def why_not_available() -> str:
    """Why no job can run on a GPU here, and what to do; empty when one can."""
    if torch.version.cuda is None:
        return (
            f"This PyTorch ({torch.__version__}) is built without CUDA. Install a CUDA build on a "
            "machine with an NVIDIA GPU."
        )
    if not torch.cuda.is_available():
        return (
            f"PyTorch {torch.__version__} finds no CUDA GPU. See whether nvidia-smi lists one, and "
            "what CUDA_VISIBLE_DEVICES says."
        )
    return ""
