"""Two sequences of allocations lined up, in order and by size.

    alignment = align(recorded, simulated)
    alignment.pairs                 # (storage of the one, storage of the other)
    alignment.only_first            # storages without a counterpart

Allocations are matched within the same section (phase of a training step): first those with the
same operator and the same size, as many as can be in order; between those, the rest with the same
size; between those, what is left with the same operator, whose sizes then differ. Zero-sized
storages have no block and are left out. Frees belong to their allocations: they differ where a
matched storage is freed between other matched allocations.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from memplan_server.allocator.rounding import round_size
from memplan_server.measure import lcs
from memplan_server.measure.events import WORKSPACE, Events, Section
from memplan_server.timeline import Phase

__all__ = ["Alignment", "align"]

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """Which storage of the first sequence is which of the second."""

    pairs: tuple[Pair, ...]
    """Matched, in order of allocation; resized ones included."""
    resized: tuple[Pair, ...]
    """Those of `pairs` whose blocks differ in size."""
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    freed_elsewhere: tuple[Pair, ...]
    """Those of `pairs` that are freed at another place in the order."""
    section_of_first: dict[int, Section]
    """Where each storage of the first was allocated."""
    section_of_second: dict[int, Section]


def align(first: Events, second: Events) -> Alignment:
    """Line the allocations of two sequences up."""
    pairs: list[Pair] = []
    only_first: list[int] = []
    only_second: list[int] = []
    for ours, theirs in _sections(first, second):
        matched = _match(first, ours, second, theirs)
        pairs += matched
        taken_first, taken_second = {a for a, _ in matched}, {b for _, b in matched}
        only_first += [s for s in ours if s not in taken_first]
        only_second += [s for s in theirs if s not in taken_second]
    return Alignment(
        pairs=tuple(pairs),
        resized=tuple((a, b) for a, b in pairs if _block(first, a) != _block(second, b)),
        only_first=tuple(only_first),
        only_second=tuple(only_second),
        freed_elsewhere=tuple(_freed_elsewhere(first, second, pairs)),
        section_of_first=_section_of(first),
        section_of_second=_section_of(second),
    )


def _block(events: Events, storage: int) -> int:
    return round_size(events.sizes[storage])


def _sections(first: Events, second: Events) -> Iterable[tuple[list[int], list[int]]]:
    """Storages allocated in corresponding sections: the n-th of the same phase and step."""
    ours, theirs = _by_section(first), _by_section(second)
    for key in dict.fromkeys([*ours, *theirs]):
        yield ours.get(key, []), theirs.get(key, [])


def _by_section(events: Events) -> dict[tuple[int, Phase, int], list[int]]:
    found: dict[tuple[int, Phase, int], list[int]] = {}
    seen: dict[tuple[int, Phase], int] = {}
    for section, start, end in events.spans():
        key = (section.step, section.phase)
        seen[key] = seen.get(key, -1) + 1
        made = [e for e in events.events[start:end] if e >= 0 and events.sizes[e]]
        found[(*key, seen[key])] = made
    return found


def _section_of(events: Events) -> dict[int, Section]:
    return {
        event: section
        for section, start, end in events.spans()
        for event in events.events[start:end]
        if event >= 0
    }


def _match(first: Events, ours: list[int], second: Events, theirs: list[int]) -> list[Pair]:
    """Three passes, each between the matches of the one before."""
    passes: list[Callable[[Events, int], Hashable]] = [_by_size]
    if first.operators and second.operators:
        passes = [_by_operator_and_size, _by_size, _by_operator]
    pairs: list[Pair] = []
    for token in passes:
        gaps = list(_gaps(pairs, len(ours), len(theirs)))
        for a, a_end, b, b_end in gaps:
            left = [token(first, s) for s in ours[a:a_end]]
            right = [token(second, s) for s in theirs[b:b_end]]
            pairs += [(a + i, b + j) for i, j in lcs.matches(left, right)]
        pairs.sort()
    return [(ours[i], theirs[j]) for i, j in pairs]


def _gaps(pairs: Sequence[Pair], n: int, m: int) -> Iterable[tuple[int, int, int, int]]:
    """What lies between matched indices: (from, to) on the one side and on the other."""
    a = b = 0
    for i, j in [*pairs, (n, m)]:
        if i > a and j > b:
            yield a, i, b, j
        a, b = i + 1, j + 1


def _by_operator_and_size(events: Events, storage: int) -> Hashable:
    return _by_operator(events, storage), _block(events, storage)


def _by_size(events: Events, storage: int) -> Hashable:
    return _block(events, storage)


def _by_operator(events: Events, storage: int) -> Hashable:
    return events.operators[storage].removesuffix(WORKSPACE)


def _freed_elsewhere(first: Events, second: Events, pairs: Sequence[Pair]) -> Iterable[Pair]:
    """Pairs whose frees come after different matched allocations."""
    numbers = range(len(pairs))
    ours = _last_before_free(first, dict(zip((a for a, _ in pairs), numbers, strict=True)))
    theirs = _last_before_free(second, dict(zip((b for _, b in pairs), numbers, strict=True)))
    for a, b in pairs:
        if ours.get(a) != theirs.get(b):
            yield a, b


def _last_before_free(events: Events, number: dict[int, int]) -> dict[int, int]:
    """For each matched storage that is freed: how many matched allocations come before that.

    What is freed after the last of them, when the run ends, counts as never freed.
    """
    freed: dict[int, int] = {}
    count = 0
    for event in events.events:
        if count == len(number):
            break
        if event >= 0:
            count += event in number
        elif ~event in number:
            freed[~event] = count
    return freed
