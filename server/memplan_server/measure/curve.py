"""Memory over a run, and the peak in each phase of the training step. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from memplan.types import AllocatorSettings, MemoryPoint, PhasePeak
from memplan.types import Phase as PublicPhase
from memplan_server.allocator import CachingAllocator, OutOfMemory
from memplan_server.allocator.caching import Block
from memplan_server.allocator.rounding import round_size
from memplan_server.measure.events import Events, Section
from memplan_server.measure.history import History
from memplan_server.timeline import Phase

__all__ = ["MOST_POINTS", "PHASES", "Replayed", "curve_of", "of_history", "replay_events"]

MOST_POINTS = 512

PHASES = {
    Phase.SETUP: PublicPhase.UNSPECIFIED,
    Phase.FORWARD: PublicPhase.FORWARD,
    Phase.BACKWARD: PublicPhase.BACKWARD,
    Phase.OPTIMIZER_STEP: PublicPhase.OPTIMIZER_STEP,
}
"""Set-up, when the model is placed, is no phase of the step."""

Level = tuple[int, int]
"""Allocated and reserved bytes right after an event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What the model of the allocator makes of recorded events."""

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    phases: tuple[PhasePeak, ...]
    curve: tuple[MemoryPoint, ...]
    failed: Section | None
    """The part of the run in which an allocation did not fit."""
    requested_bytes: int
    """Bytes of that allocation."""


def replay_events(
    events: Events, settings: AllocatorSettings, capacity_bytes: int | None = None
) -> Replayed:
    """Drive the model of the allocator with events up to the first that does not fit."""
    levels = list(_levels(events, CachingAllocator(settings, capacity_bytes)))
    points = list(_points(events, levels))
    index, failed, requested = len(levels), None, 0
    if index < len(events.events):
        requested = events.sizes[events.events[index]]
        failed = next(s for s, start, end in events.spans() if start <= index < end)
    return Replayed(
        peak_allocated_bytes=max((a for a, _ in levels), default=0),
        peak_reserved_bytes=max((r for _, r in levels), default=0),
        phases=_phases(points),
        curve=_thinned(points),
        failed=failed,
        requested_bytes=requested,
    )


def curve_of(history: History, sections: Events) -> tuple[MemoryPoint, ...]:
    """The curve of an allocator's history; `sections` are the same events with their phases.

    Allocated bytes are those asked for, rounded up to 512: blocks may be a little larger.
    """
    return _thinned(list(_points(sections, list(of_history(history)))))


def of_history(history: History) -> Iterator[Level]:
    """The level after each event."""
    allocated = reserved = 0
    for event in history.events:
        if event >= 0:
            allocated += round_size(history.sizes[event])
            reserved = history.reserved[event]
        else:
            allocated -= round_size(history.sizes[~event])
        yield allocated, reserved


def _levels(events: Events, allocator: CachingAllocator) -> Iterator[Level]:
    """The level after each event that fits."""
    blocks: dict[int, Block] = {}
    for event in events.events:
        if event < 0:
            block = blocks.pop(~event, None)
            if block is not None:
                allocator.free(block)
        elif events.sizes[event]:
            try:
                blocks[event] = allocator.malloc(events.sizes[event])
            except OutOfMemory:
                return
        yield allocator.allocated_bytes, allocator.reserved_bytes


def _points(events: Events, levels: list[Level]) -> Iterator[MemoryPoint]:
    """A point for each level."""
    for section, start, end in events.spans():
        for index in range(start, min(end, len(levels))):
            allocated, reserved = levels[index]
            yield MemoryPoint(
                event=index + 1,
                phase=PHASES[section.phase],
                step=section.step,
                allocated_bytes=allocated,
                reserved_bytes=reserved,
            )


def _phases(points: Iterable[MemoryPoint]) -> tuple[PhasePeak, ...]:
    peaks: dict[PublicPhase, Level] = {}
    for point in points:
        allocated, reserved = peaks.get(point.phase, (0, 0))
        peaks[point.phase] = (
            max(allocated, point.allocated_bytes),
            max(reserved, point.reserved_bytes),
        )
    return tuple(
        PhasePeak(phase=phase, peak_allocated_bytes=allocated, peak_reserved_bytes=reserved)
        for phase, (allocated, reserved) in peaks.items()
        if phase is not PublicPhase.UNSPECIFIED
    )


def _thinned(points: list[MemoryPoint]) -> tuple[MemoryPoint, ...]:
    """At most `MOST_POINTS`: of neighbours the highest, and the last of all."""
    if len(points) <= MOST_POINTS:
        return tuple(points)
    width = -(-(len(points) - 1) // (MOST_POINTS - 1))
    parts = (points[i : i + width] for i in range(0, len(points) - 1, width))
    return (*(max(part, key=lambda p: p.allocated_bytes) for part in parts), points[-1])
