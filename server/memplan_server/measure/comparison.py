"""What a run allocated and what was simulated, side by side.

    comparison = compare_events(measured, simulated)
    for group in comparison.only_measured: ...

Imports no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from memplan_server.allocator import replay
from memplan_server.allocator.rounding import round_size
from memplan_server.measure.alignment import Alignment, align
from memplan_server.measure.events import Events, Section

__all__ = ["EventComparison", "Group", "PairGroup", "compare_events", "names_from"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Storages that stand on one side only, by operator and phase."""

    operator: str
    phase: str
    count: int
    block_bytes: int
    """Their blocks, 512-byte multiples, added up."""
    bytes_at_peak: int
    """Of those, what is alive at that side's allocated peak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairGroup:
    """Matched storages that differ, by the measured side's operator and phase."""

    operator: str
    phase: str
    count: int
    measured_bytes: int
    simulated_bytes: int
    measured_bytes_at_peak: int
    simulated_bytes_at_peak: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EventComparison:
    """The outcome of lining both sequences up. Groups: most bytes at the peak first."""

    measured_allocations: int
    simulated_allocations: int
    matched_allocations: int
    only_measured: tuple[Group, ...]
    only_simulated: tuple[Group, ...]
    resized: tuple[PairGroup, ...]
    """The same allocation with another size."""
    freed_elsewhere: tuple[PairGroup, ...]
    """The same allocation, freed earlier or later on the one side."""

    @property
    def differences(self) -> int:
        """Allocations that are not the same on both sides."""
        one_sided = sum(group.count for group in (*self.only_measured, *self.only_simulated))
        return one_sided + sum(group.count for group in (*self.resized, *self.freed_elsewhere))


def compare_events(measured: Events, simulated: Events) -> EventComparison:
    """Line the two up and group what differs."""
    alignment = align(measured, simulated)
    ours = _Side(measured, alignment.section_of_first)
    theirs = _Side(simulated, alignment.section_of_second)
    return EventComparison(
        measured_allocations=ours.allocations,
        simulated_allocations=theirs.allocations,
        matched_allocations=len(alignment.pairs),
        only_measured=ours.groups(alignment.only_first),
        only_simulated=theirs.groups(alignment.only_second),
        resized=_pair_groups(alignment.resized, ours, theirs),
        freed_elsewhere=_pair_groups(alignment.freed_elsewhere, ours, theirs),
    )


def names_from(plain: Events, named: Events) -> tuple[Events, int]:
    """`plain` with the operators of `named`, a second run; and in how many allocations they differ.

    Those that the second run did not make are called "unknown".
    """
    alignment: Alignment = align(plain, named)
    operators = ["unknown"] * len(plain.sizes)
    for ours, theirs in alignment.pairs:
        operators[ours] = named.operators[theirs]
    events = Events(
        events=plain.events, sizes=plain.sizes, operators=operators, sections=plain.sections
    )
    return events, len(alignment.only_first) + len(alignment.only_second)


class _Side:
    """One sequence, with what is alive at its peak."""

    def __init__(self, events: Events, section_of: dict[int, Section]) -> None:
        self._events = events
        self._section_of = section_of
        peak = replay(events.events, np.array(events.sizes, np.int64)).peak_event
        self._alive = events.alive_after(peak)
        self.allocations = sum(e >= 0 and events.sizes[e] > 0 for e in events.events)

    def key(self, storage: int) -> tuple[str, str]:
        return self._events.operator(storage), self._section_of[storage].phase.name.lower()

    def block_bytes(self, storage: int) -> int:
        return round_size(self._events.sizes[storage])

    def bytes_at_peak(self, storage: int) -> int:
        return self.block_bytes(storage) if storage in self._alive else 0

    def groups(self, storages: Iterable[int]) -> tuple[Group, ...]:
        by_key: dict[tuple[str, str], list[int]] = defaultdict(list)
        for storage in storages:
            by_key[self.key(storage)].append(storage)
        groups = [
            Group(
                operator=operator,
                phase=phase,
                count=len(some),
                block_bytes=sum(map(self.block_bytes, some)),
                bytes_at_peak=sum(map(self.bytes_at_peak, some)),
            )
            for (operator, phase), some in by_key.items()
        ]
        return tuple(sorted(groups, key=lambda g: (-g.bytes_at_peak, -g.block_bytes, g.operator)))


def _pair_groups(
    pairs: Iterable[tuple[int, int]], measured: _Side, simulated: _Side
) -> tuple[PairGroup, ...]:
    by_key: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for pair in pairs:
        by_key[measured.key(pair[0])].append(pair)

    def total(size: Callable[[int], int], storages: Iterable[int]) -> int:
        return sum(map(size, storages))

    groups = []
    for (operator, phase), some in by_key.items():
        ours, theirs = [a for a, _ in some], [b for _, b in some]
        groups.append(
            PairGroup(
                operator=operator,
                phase=phase,
                count=len(some),
                measured_bytes=total(measured.block_bytes, ours),
                simulated_bytes=total(simulated.block_bytes, theirs),
                measured_bytes_at_peak=total(measured.bytes_at_peak, ours),
                simulated_bytes_at_peak=total(simulated.bytes_at_peak, theirs),
            )
        )
    return tuple(sorted(groups, key=_weight))


def _weight(group: PairGroup) -> tuple[int, int, str]:
    at_peak = abs(group.measured_bytes_at_peak - group.simulated_bytes_at_peak)
    return -at_peak, -abs(group.measured_bytes - group.simulated_bytes), group.operator
