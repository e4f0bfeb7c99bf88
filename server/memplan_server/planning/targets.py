"""What planning works on: GPUs with their capacity, and timelines by job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from memplan.types import AllocatorSettings, GpuTarget, GpuType, TrainingJob
from memplan_server.allocator import Replay, replay
from memplan_server.timeline import Timeline

__all__ = ["MAX_BATCH_SIZE", "Target", "Timelines", "run"]

MAX_BATCH_SIZE = 1 << 24


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
    most_samples: int = MAX_BATCH_SIZE
    """No larger micro-batch: one was seen not to fit."""

    @property
    def capacity_bytes(self) -> int:
        """Bytes a process can take on it, its CUDA context included."""
        free = self.gpu.free_bytes
        return self.gpu_type.usable_bytes if free is None else free


def run(
    timeline: Timeline,
    batch_size: int,
    settings: AllocatorSettings,
    *,
    last_batch_size: int | None = None,
    room_bytes: int | None = None,
) -> Replay:
    """Replay a timeline with its workspaces; `room_bytes` is what the CUDA context leaves."""
    sizes = timeline.sizes(batch_size, last_batch_size=last_batch_size)
    return replay(
        timeline.events.tolist(),
        sizes,
        settings,
        room_bytes,
        cache_emptied=timeline.cache_emptied,
        streams=timeline.stream,
    )
