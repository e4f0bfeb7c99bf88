"""Memory of one job on one GPU type at any batch size, as cheaply as each question allows.

probe.allocated_bytes(32)       # numpy, microseconds: a lower bound of what is needed
probe.reserved_bytes(32)        # one replay without a limit, remembered and shared between GPUs
probe.fits(32, capacity_bytes)  # asks the two above first; a replay with the limit only between
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from memplan.types import AllocatorSettings, GpuType, TrainingJob
from memplan_server.allocator import Unlimited
from memplan_server.allocator.rounding import MIN_BLOCK_SIZE
from memplan_server.gpus.libraries import workspace_bytes
from memplan_server.planning.targets import Timelines, run
from memplan_server.timeline import Timeline

__all__ = ["Probe", "Shared", "largest"]

MAX_BATCH_SIZE = 1 << 24


@dataclass(slots=True)
class Shared:
    """Replays without a limit that several GPUs have in common."""

    reserved: dict[tuple[int, tuple[tuple[str, int], ...], int], int] = field(default_factory=dict)
    unlimited: dict[int, Unlimited] = field(default_factory=dict)


@dataclass(slots=True)
class Probe:
    """One job on one GPU type."""

    timelines: Timelines
    job: TrainingJob
    gpu_type: GpuType
    shared: Shared = field(default_factory=Shared)

    def timeline(self, batch_size: int) -> Timeline:
        """The timeline that holds for this batch size."""
        return self.timelines.get(replace(self.job, micro_batch_size=batch_size), self.gpu_type)

    def allocated_bytes(self, batch_size: int) -> int:
        """Peak of the allocated bytes, blocks rounded but not split from segments."""
        timeline = self.timeline(batch_size)
        sizes = timeline.sizes(batch_size, workspace_bytes=workspace_bytes(self.gpu_type))
        rounded = -(-sizes // MIN_BLOCK_SIZE) * MIN_BLOCK_SIZE
        allocations = timeline.events >= 0
        storage = np.where(allocations, timeline.events, ~timeline.events)
        change = np.where(allocations, rounded[storage], -rounded[storage])
        return int(np.cumsum(change).max(initial=0))

    def reserved_bytes(self, batch_size: int) -> int:
        """Peak of the reserved bytes when the driver has room for everything."""
        timeline = self.timeline(batch_size)
        workspaces = tuple(sorted(workspace_bytes(self.gpu_type).items()))
        key = (id(timeline), workspaces if timeline.workspaces else (), batch_size)
        if key not in self.shared.reserved:
            self.shared.reserved[key] = self._reserved_bytes(timeline, batch_size)
        return self.shared.reserved[key]

    def _reserved_bytes(self, timeline: Timeline, batch_size: int) -> int:
        if self.job.allocator != AllocatorSettings():
            return run(timeline, self.gpu_type, batch_size, self.job.allocator).peak_reserved_bytes
        if id(timeline) not in self.shared.unlimited:
            self.shared.unlimited[id(timeline)] = Unlimited(timeline.events)
        sizes = timeline.sizes(batch_size, workspace_bytes=workspace_bytes(self.gpu_type))
        return self.shared.unlimited[id(timeline)].peak_reserved_bytes(sizes)

    def device_used_bytes(self, batch_size: int) -> int:
        """What the driver shows for the process when it has room for everything."""
        return self.reserved_bytes(batch_size) + self.gpu_type.context_bytes

    def may_fit(self, batch_size: int, capacity_bytes: int) -> bool:
        """Whether the tensors alone fit. False is certain, True is not."""
        return self.allocated_bytes(batch_size) + self.gpu_type.context_bytes <= capacity_bytes

    def fits(self, batch_size: int, capacity_bytes: int) -> bool:
        """Whether a replay with this capacity succeeds."""
        if not self.may_fit(batch_size, capacity_bytes):
            return False
        if self.device_used_bytes(batch_size) <= capacity_bytes:
            return True
        timeline = self.timeline(batch_size)
        done = run(
            timeline,
            self.gpu_type,
            batch_size,
            self.job.allocator,
            capacity_bytes=capacity_bytes,
        )
        return done.out_of_memory_event is None

    def largest_that_fits(self, capacity_bytes: int, limit: int = MAX_BATCH_SIZE) -> int:
        """Largest batch size that fits while the next does not; 0 when 1 does not fit."""
        bound = largest(lambda b: self.may_fit(b, capacity_bytes), limit)
        return largest(lambda b: self.fits(b, capacity_bytes), bound, guess=bound)

    def largest_within(self, room_bytes: int, limit: int, multiple_of: int = 1) -> int:
        """Largest multiple up to `limit` whose device-used bytes stay within `room_bytes`."""
        top = limit // multiple_of
        if not top:
            return 0
        first, last = (self.device_used_bytes(n * multiple_of) for n in (1, top))
        slope = max(1, last - first) / max(1, top - 1)
        guess = 1 + int((room_bytes - first) / slope)
        found = largest(lambda n: self.device_used_bytes(n * multiple_of) <= room_bytes, top, guess)
        return found * multiple_of


def largest(holds: Callable[[int], bool], limit: int, guess: int = 1) -> int:
    """The largest n <= `limit` with holds(n) and not holds(n + 1); 0 when holds(1) is false.

    Taken for granted: what does not hold for n does not hold for more. Searched in doubling steps
    away from `guess`, then by halving: the nearer the guess, the fewer questions.
    """
    if limit < 1:
        return 0
    low, high, step = 0, limit + 1, 1
    at = min(max(1, guess), limit)
    if holds(at):
        low = at
        while low < limit and holds(at := min(limit, low + step)):
            low, step = at, step * 2
        high = min(high, low + step) if low < limit else high
    else:
        high = at
        while high > 1 and not holds(at := max(1, high - step)):
            high, step = at, step * 2
        low = at if high > 1 else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
