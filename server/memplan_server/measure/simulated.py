"""What the simulated GPU does for a job, event by event, with the operator of each allocation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memplan.types import GpuType, TrainingJob
from memplan_server import models
from memplan_server.allocator import replay
from memplan_server.gpus.libraries import capability, kernel_class, workspaces
from memplan_server.measure.events import WORKSPACE, Events, Section
from memplan_server.simulate import device, trace, worker
from memplan_server.simulate.recorder import Recorder

__all__ = ["Simulated", "simulate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """A simulated run of two steps."""

    events: Events
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_event: int
    """Index of the event at which the allocated peak is reached."""
    assumptions: tuple[str, ...]


class _NamingRecorder(Recorder):
    """Notes the operator of each allocation besides: as on a real device, the one that the program
    called, whatever that executes."""

    def __init__(self, simulated: torch.device, *, cudnn_benchmark: bool) -> None:
        super().__init__(simulated, cudnn_benchmark=cudnn_benchmark)
        self.names: list[str] = []
        self._running = ""
        self._within = False
        self._taking = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._depth or self._within:
            return super().__torch_dispatch__(func, types, args, kwargs)
        self._running, self._within = func._overloadpacket.__name__, True
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._within = False

    def _take(self, sizes: Sequence[int]) -> None:
        self._taking = True
        try:
            super()._take(sizes)
        finally:
            self._taking = False

    def _allocate(self, workspace: str = "") -> int:
        momentary = workspace or self._taking
        self.names.append(f"{self._running}{WORKSPACE}" if momentary else self._running)
        return super()._allocate(workspace)


def simulate(job: TrainingJob, gpu_type: GpuType) -> Simulated:
    """Run a normalised job on the simulated GPU. Changes the process: for child processes.

    Raises what `worker.trace` raises.
    """
    worker.initialize()
    recorder = _NamingRecorder(device.register(), cudnn_benchmark=job.cudnn_benchmark)
    gpu = kernel_class(capability(gpu_type))
    built = models.build(job)
    traced = trace.trace_at(job, built, gpu, job.micro_batch_size, recorder)
    timeline = traced.with_workspaces(workspaces(gpu_type))
    sizes = timeline.sizes(job.micro_batch_size)
    events = timeline.events.tolist()
    result = replay(
        events,
        sizes,
        job.allocator,
        cache_emptied=timeline.cache_emptied,
        streams=timeline.stream,
    )
    return Simulated(
        events=Events(
            events=events,
            sizes=sizes.tolist(),
            operators=recorder.names,
            sections=[Section(*mark) for mark in recorder.recording.marks],
        ),
        peak_allocated_bytes=result.peak_allocated_bytes,
        peak_reserved_bytes=result.peak_reserved_bytes,
        peak_event=result.peak_event,
        assumptions=timeline.assumptions,
    )
