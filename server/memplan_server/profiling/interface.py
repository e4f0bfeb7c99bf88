"""What measures jobs, as the planner sees it.

for event in profiler.profile(Asked.of(request, peer="10.0.0.7"), call):
    event.progress or event.profile         # the last one has the profile
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from memplan.types import DeviceType, ProfileMemoryRequest, ProfileMemoryResponse, TrainingJob
from memplan_server.calls import Call
from memplan_server.jobs import normalize

__all__ = ["Asked", "Profiler"]

STEPS, WARMUP_STEPS = 3, 2
TIME_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request with its defaults written out, and who asks."""

    job: TrainingJob
    """Normalised, its model known."""
    step_count: int = STEPS
    warmup_step_count: int = WARMUP_STEPS
    memory_limit_bytes: int = 0
    """0: all that is free."""
    time_limit_s: float = TIME_LIMIT_S
    device_type: DeviceType = DeviceType.UNSPECIFIED
    gpu_type: str = ""
    """Catalog name, or "" for any."""
    wait_for_gpu: bool = False
    find_batch_size: bool = False
    peer: str = ""
    """Who asks: the queue is fair between peers."""
    forwarded: bool = False
    """It comes from another server, which must not get it back."""

    @classmethod
    def of(cls, request: ProfileMemoryRequest, *, peer: str = "", forwarded: bool = False) -> Asked:
        """From a valid request."""
        limit = request.time_limit
        return cls(
            job=normalize(request.job),
            step_count=request.step_count or STEPS,
            warmup_step_count=request.warmup_step_count or WARMUP_STEPS,
            memory_limit_bytes=request.memory_limit_bytes,
            time_limit_s=limit.total_seconds() if limit is not None else TIME_LIMIT_S,
            device_type=request.device_type,
            gpu_type=request.gpu_type,
            wait_for_gpu=request.wait_for_gpu,
            find_batch_size=request.find_batch_size,
            peer=peer,
            forwarded=forwarded,
        )

    def at(self, micro_batch_size: int) -> Asked:
        """The same at another micro-batch size."""
        return replace(self, job=replace(self.job, micro_batch_size=micro_batch_size))


class Profiler(Protocol):
    """Runs jobs for real. Safe to use from several threads."""

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """Progress, and the profile as the last event; closing the iterator stops the work.

        The profile has a `profile_id` where it was stored. Raises `NoDevice`,
        `LimitExceeded` (queue full, GPU in use), `TimeLimitExceeded`, `Cancelled`,
        `MeasurementFailure`, `Unreachable`, `Relayed`, and `InvalidJob` for a job that cannot run.
        """
        ...
