"""Memory of one job on one GPU type at any batch size, as cheaply as each question allows.

probe.allocated_bytes(32)       # numpy, microseconds: a lower bound of what is needed
probe.reserved_bytes(32)        # one replay without a limit, remembered and shared between GPUs
probe.fits(32, capacity_bytes)  # asks the two above first; a replay with the limit only between
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from memplan.types import AllocatorSettings, GpuType, TrainingJob
from memplan_server.allocator import Replay, Unlimited
from memplan_server.gpus.context import context_bytes
from memplan_server.gpus.libraries import Workspaces, workspaces
from memplan_server.planning.learned import NOTHING_LEARNED, Learned
from memplan_server.planning.targets import MAX_BATCH_SIZE, Target, Timelines, run
from memplan_server.planning.uncertainty import (
    CONFIDENCE,
    Bounds,
    Margin,
    confidences_from,
    margin,
)
from memplan_server.timeline import Timeline

__all__ = ["Probe", "Shared", "largest"]

_ANCHORS = (64, 256)
_SMALL_ANCHORS = (2, 4)
"""Where each batch size is simulated apart, which takes the longer the larger it is."""
_MOST_GUESSES = 2
_MOST_EVENTS = 100_000
"""Of a simulation whose events grow with the batch, one for each sample in a loop over them: more
would take minutes."""
_CLOSE = 0.9
"""Above this share of the capacity, tensors leave so little room that only a replay decides."""


@dataclass(slots=True)
class Shared:
    """Replays that several GPUs have in common."""

    reserved: dict[int, dict[int, int]] = field(default_factory=dict)
    """By timeline (its `id`) and batch size."""
    limited: dict[tuple[int, int, int], Replay] = field(default_factory=dict)
    """By timeline, batch size and room."""
    timelines: dict[tuple[int, Workspaces], tuple[Timeline, Timeline]] = field(default_factory=dict)
    """By timeline as traced, which is kept so that its id stays its own, and workspaces."""
    unlimited: dict[int, Unlimited] = field(default_factory=dict)
    """By the array of events, which GPUs with other workspaces have in common."""
    by_sizes: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """Reserved bytes by events and the sizes of all storages: workspaces often are the same after
    all."""
    gap: float = 0.0
    """By which share the largest batch stayed below what its tensors alone would allow, last time:
    where to look first on the next GPU."""

    def on_gpu(self, timeline: Timeline, gpu_type: GpuType) -> Timeline:
        """The timeline with the GPU's workspaces; the same one for GPUs that have the same."""
        key = id(timeline), workspaces(gpu_type)
        if key not in self.timelines:
            self.timelines[key] = timeline, timeline.with_workspaces(key[1])
        return self.timelines[key][1]


@dataclass(slots=True)
class Probe:
    """One job on one GPU type."""

    timelines: Timelines
    job: TrainingJob
    gpu_type: GpuType
    shared: Shared = field(default_factory=Shared)
    confidence: float = CONFIDENCE
    """Of the upper bound that `largest_safe` is about."""
    learned: Learned = NOTHING_LEARNED
    _traits: tuple[str, ...] | None = field(default=None, init=False, repr=False)

    def timeline(self, batch_size: int) -> Timeline:
        """The timeline that holds for this batch size, with the workspaces of the GPU."""
        job = replace(self.job, micro_batch_size=batch_size)
        found = self.shared.on_gpu(self.timelines.get(job, self.gpu_type), self.gpu_type)
        self._traits = found.traits
        return found

    @property
    def context_bytes(self) -> int:
        """What CUDA takes for this job beside the allocator, as any of its timelines says."""
        if self._traits is None:
            self._traits = self.sample.traits
        return context_bytes(self.gpu_type, self._traits)

    @property
    def sample(self) -> Timeline:
        """The timeline at a small batch size, for what does not depend on it. Not at 1, at which
        some models cannot be trained."""
        return self.timeline(_SMALL_ANCHORS[0])

    def allocated_bytes(self, batch_size: int) -> int:
        """Peak of the allocated bytes, blocks rounded but not split from segments."""
        timeline = self.timeline(batch_size)
        sizes = timeline.sizes(batch_size)
        return self._unlimited(timeline).peak_allocated_bytes(sizes)

    def reserved_bytes(self, batch_size: int) -> int:
        """Peak of the reserved bytes when the driver has room for everything."""
        known = self.shared.reserved.setdefault(id(self.timeline(batch_size)), {})
        if batch_size not in known:
            known[batch_size] = self._reserved_bytes(self.timeline(batch_size), batch_size)
        return known[batch_size]

    def _reserved_bytes(self, timeline: Timeline, batch_size: int) -> int:
        if self.job.allocator != AllocatorSettings():
            return run(timeline, batch_size, self.job.allocator).peak_reserved_bytes
        sizes = timeline.sizes(batch_size)
        key = id(timeline.events), sizes.tobytes()
        if key not in self.shared.by_sizes:
            self.shared.by_sizes[key] = self._unlimited(timeline).peak_reserved_bytes(sizes)
        return self.shared.by_sizes[key]

    def _unlimited(self, timeline: Timeline) -> Unlimited:
        key = id(timeline.events)
        if key not in self.shared.unlimited:
            made = Unlimited(timeline.events, timeline.cache_emptied, timeline.stream)
            self.shared.unlimited[key] = made
        return self.shared.unlimited[key]

    def device_used_bytes(self, batch_size: int) -> int:
        """What the driver shows for the process when it has room for everything."""
        return self.reserved_bytes(batch_size) + self.context_bytes

    def fits(self, batch_size: int, capacity_bytes: int) -> bool:
        """Whether a replay with this capacity succeeds.

        The cheaper questions come first: tensors that do not fit, and reserved bytes that do.
        """
        needed = self.allocated_bytes(batch_size) + self.context_bytes
        if needed > capacity_bytes:
            return False
        close = needed > _CLOSE * capacity_bytes
        if not close and self.device_used_bytes(batch_size) <= capacity_bytes:
            return True
        return self.limited(batch_size, capacity_bytes).out_of_memory_event is None

    def limited(self, batch_size: int, capacity_bytes: int) -> Replay:
        """The replay with this capacity, of which the CUDA context takes its part."""
        timeline = self.timeline(batch_size)
        room = capacity_bytes - self.context_bytes
        key = (id(timeline), batch_size, room)
        if key not in self.shared.limited:
            self.shared.limited[key] = run(
                timeline, batch_size, self.job.allocator, room_bytes=room
            )
        return self.shared.limited[key]

    def surely_fits(self, target: Target) -> bool:
        """Whether the upper bound fits on the target at the job's own batch size."""
        batch_size = self.job.micro_batch_size
        if batch_size > target.most_samples:
            return False
        return self.bounds(batch_size).upper_bytes <= target.capacity_bytes

    def largest_that_fits(self, capacity_bytes: int, limit: int = MAX_BATCH_SIZE) -> int:
        """Largest batch size that fits while the next does not; 0 when 1 does not fit."""
        room = capacity_bytes - self.context_bytes
        if not self.sample.affine:
            return self._largest_apart(capacity_bytes, room, self.reach(limit))
        bound = largest(
            lambda b: self.allocated_bytes(b) <= room, limit, self._allocated_guess(room)
        )
        guess = round(bound * (1 - self.shared.gap))
        found = largest(lambda b: self.fits(b, capacity_bytes), bound, guess)
        self.shared.gap = 1 - found / bound if bound else 0.0
        return found

    def reach(self, limit: int) -> int:
        """The largest batch size up to `limit` that is looked at.

        There is an end to it where each is simulated apart and takes the longer the larger it is.
        """
        if self.sample.affine:
            return limit
        small, large = _SMALL_ANCHORS
        events = len(self.sample.events)
        more = (len(self.timeline(large).events) - events) // (large - small)
        return min(limit, small + max(0, _MOST_EVENTS - events) // more) if more > 0 else limit

    def largest_safe(
        self, capacity_bytes: int, headroom_fraction: float, limit: int, multiple_of: int = 1
    ) -> int:
        """Largest multiple up to `limit` that leaves the headroom and whose upper bound fits.

        Reserved bytes now and then fall as the batch grows, and the search then finds one of
        several borders. What is safe at a higher confidence is safe at a lower one: with all of
        them tried, less confidence never means a smaller batch.
        """
        wanted = capacity_bytes - int(capacity_bytes * headroom_fraction)
        margins = (
            margin(self.sample, self.gpu_type, c, self.learned)
            for c in confidences_from(self.confidence)
        )
        return max(
            self._largest_within(m, capacity_bytes, wanted, limit, multiple_of) for m in margins
        )

    def _largest_within(
        self, within: Margin, capacity_bytes: int, wanted_bytes: int, limit: int, multiple_of: int
    ) -> int:
        """Largest multiple up to `limit` that takes at most what is wanted and whose bound fits."""

        def is_safe(batch_size: int) -> bool:
            if self.device_used_bytes(batch_size) > wanted_bytes:
                return False
            return self._bounds(within, batch_size).upper_bytes <= capacity_bytes

        context, anchor = self.context_bytes, self._anchors()[-1]
        beyond = self._bounds(within, anchor).upper_bytes - context - within.slack_bytes
        share = beyond / max(1, self.reserved_bytes(anchor))
        safe = int((capacity_bytes - context - within.slack_bytes) / share)
        guess = self._reserved_guess(min(wanted_bytes - context, safe))
        found = largest(
            lambda n: is_safe(n * multiple_of),
            self.reach(limit) // multiple_of,
            guess // multiple_of,
        )
        return found * multiple_of

    def bounds(self, batch_size: int) -> Bounds:
        """The bounds of device-used bytes at the confidence of this probe."""
        found = margin(self.timeline(batch_size), self.gpu_type, self.confidence, self.learned)
        return self._bounds(found, batch_size)

    def _bounds(self, within: Margin, batch_size: int) -> Bounds:
        reserved = self.reserved_bytes(batch_size)
        allocated = self.allocated_bytes(batch_size)
        return within.bounds(allocated, reserved, self.context_bytes)

    def _largest_apart(self, capacity_bytes: int, room: int, limit: int) -> int:
        """The same in few questions: between where reserved and where allocated bytes fill it."""
        low = self._settled_guess(room, limit)
        first = min(_SMALL_ANCHORS[0], low)
        at_first, at_low = self.allocated_bytes(first), self.allocated_bytes(low)
        slope = max(1.0, (at_low - at_first) / max(1, low - first))
        width = max(0, min(limit, low + int((room - at_low) / slope)) - low)
        middle, step = low + width // 2, max(1, width // 4)
        return largest(lambda b: self.fits(b, capacity_bytes), limit, middle, step)

    def _settled_guess(self, room: int, limit: int) -> int:
        """Where reserved bytes meet the room, asked for until they do: each question takes long."""
        guess = 0
        for _ in range(_MOST_GUESSES):
            before, guess = guess, min(max(1, self._reserved_guess(room)), limit)
            if guess == before:
                break
            self.reserved_bytes(guess)
        return guess

    def _allocated_guess(self, room: int) -> int:
        """Where the line through two batch sizes meets the room."""
        low, high = (self.allocated_bytes(b) for b in _ANCHORS)
        slope = max(1.0, (high - low) / (_ANCHORS[1] - _ANCHORS[0]))
        return _ANCHORS[0] + int((room - low) / slope)

    def _reserved_guess(self, room: int) -> int:
        """Where the line through what is known on either side meets the room."""
        for anchor in self._anchors():
            self.reserved_bytes(anchor)
        known = sorted(self._known_reserved().items())
        after = next((i for i, (_, size) in enumerate(known) if size > room), len(known) - 1)
        (low, at_low), (high, at_high) = known[max(1, after) - 1], known[max(1, after)]
        slope = max(1.0, (at_high - at_low) / (high - low))
        return low + int((room - at_low) / slope)

    def _anchors(self) -> tuple[int, int]:
        return _ANCHORS if self.sample.affine else _SMALL_ANCHORS

    def _known_reserved(self) -> dict[int, int]:
        """Reserved bytes by batch size, as far as they have been asked for."""
        if self.sample.affine:
            return self.shared.reserved[id(self.sample)]
        return {b: size for known in self.shared.reserved.values() for b, size in known.items()}


def largest(holds: Callable[[int], bool], limit: int, guess: int = 1, step: int = 1) -> int:
    """The largest n <= `limit` with holds(n) and not holds(n + 1); 0 when holds(1) is false.

    Taken for granted: what does not hold for n does not hold for more. Searched in doubling steps
    away from `guess`, then by halving: the nearer the guess, the fewer questions.
    """
    if limit < 1:
        return 0
    low, high = 0, limit + 1
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
