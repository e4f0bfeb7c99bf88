"""What planning works on: GPUs with their capacity, and timelines by job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from memplan.types import AllocatorSettings, GpuTarget, GpuType, TrainingJob
from memplan_server.allocator import Replay, replay
from memplan_server.gpus.libraries import workspace_bytes
from memplan_server.timeline import Timeline

__all__ = ["Target", "Timelines", "run"]


class Timelines(Protocol):
    """Where timelines come from: a cache, a worker process, a test."""

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        """The job's timeline on such a GPU; may take seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU asked about, with its catalog entry."""

    gpu: GpuTarget
    gpu_type: GpuType

    @property
    def capacity_bytes(self) -> int:
        """Bytes a process can take on it, its CUDA context included."""
        free = self.gpu.free_bytes
        return self.gpu_type.usable_bytes if free is None else free


def run(
    timeline: Timeline,
    gpu_type: GpuType,
    batch_size: int,
    settings: AllocatorSettings,
    *,
    last_batch_size: int | None = None,
    capacity_bytes: int | None = None,
) -> Replay:
    """Replay the timeline at this batch size; `capacity_bytes` is the GPU's, context included."""
    sizes = timeline.sizes(
        batch_size, last_batch_size=last_batch_size, workspace_bytes=workspace_bytes(gpu_type)
    )
    room = None if capacity_bytes is None else capacity_bytes - gpu_type.context_bytes
    return replay(timeline.events.tolist(), sizes, settings, room)
