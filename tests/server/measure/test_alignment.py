"""Edits made to a sequence of allocations are found again, and nothing else is."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan_server.measure.alignment import align
from memplan_server.measure.events import Events, Section
from memplan_server.timeline import Phase

OPERATORS = ("convolution", "mm", "relu", "add")
NEW = 1 << 30
"""Sizes from here on are of no storage of the sequence that is edited."""


def sequence(count: int, seed: int, *, named: bool, sections: int = 3) -> Events:
    """`count` storages of few sizes, some freed, in sections."""
    chance = random.Random(seed)
    events: list[int] = []
    starts, alive = [0], []
    for storage in range(count):
        if storage and storage % max(1, count // sections) == 0 and len(starts) < sections:
            starts.append(len(events))
        events.append(storage)
        alive.append(storage)
        while alive and chance.random() < 0.4:
            events.append(~alive.pop(chance.randrange(len(alive))))
    return Events(
        events=events,
        sizes=[512 * chance.randint(1, 6) for _ in range(count)],
        operators=[chance.choice(OPERATORS) for _ in range(count)] if named else (),
        sections=[Section(start, Phase(i), 0) for i, start in enumerate(starts)],
    )


def without(events: Events, gone: set[int]) -> Events:
    """The same without some storages; the others keep their numbers."""
    kept = [e for e in events.events if (e if e >= 0 else ~e) not in gone]
    sections = [
        Section(_kept_before(events, gone, s.start), s.phase, s.step) for s in events.sections
    ]
    return Events(events=kept, sizes=events.sizes, operators=events.operators, sections=sections)


def _kept_before(events: Events, gone: set[int], index: int) -> int:
    return sum((e if e >= 0 else ~e) not in gone for e in events.events[:index])


EDITED = st.sets(st.integers(0, 59), max_size=12)


@given(inserted=EDITED, deleted=EDITED, seed=st.integers(0, 99), named=st.booleans())
def test_inserted_and_deleted_are_found(
    inserted: set[int], deleted: set[int], seed: int, named: bool
) -> None:
    everything = sequence(60, seed, named=named)
    deleted = deleted - inserted
    sizes = [
        NEW + 512 * s if s in inserted else 2 * NEW + 512 * s if s in deleted else size
        for s, size in enumerate(everything.sizes)
    ]
    marked = Events(
        events=everything.events,
        sizes=sizes,
        operators=[
            "new" if s in inserted else "old" if s in deleted else o
            for s, o in enumerate(everything.operators)
        ],
        sections=everything.sections,
    )
    found = align(without(marked, deleted), without(marked, inserted))
    assert set(found.only_first) == inserted
    assert set(found.only_second) == deleted
    assert all(a == b for a, b in found.pairs)
    assert not found.resized
    assert not found.freed_elsewhere


@given(resized=EDITED, seed=st.integers(0, 99))
def test_resized_are_found_by_their_operator(resized: set[int], seed: int) -> None:
    plain = sequence(60, seed, named=True)
    sizes = [NEW if s in resized else size for s, size in enumerate(plain.sizes)]
    other = Events(
        events=plain.events, sizes=sizes, operators=plain.operators, sections=plain.sections
    )
    found = align(plain, other)
    assert len(found.pairs) + len(found.only_first) == 60
    assert len(found.resized) + len(found.only_first) == len(resized)
    assert len(found.only_first) == len(found.only_second)
    if len(resized) == 1:
        assert found.resized == tuple((s, s) for s in resized)


@given(
    edits=st.lists(st.tuples(st.booleans(), st.integers(0, 59)), max_size=10), named=st.booleans()
)
def test_never_more_differences_than_edits(edits: list[tuple[bool, int]], named: bool) -> None:
    everything = sequence(60, 7, named=named)
    ours = {s for first, s in edits if first}
    theirs = {s for first, s in edits if not first} - ours
    found = align(without(everything, theirs), without(everything, ours))
    if not named:  # with names, operators count before the number of matches
        assert len(found.only_first) + len(found.only_second) <= len(ours) + len(theirs)
    assert len(found.only_first) - len(found.only_second) == len(ours) - len(theirs)


def test_a_free_at_another_place_is_found() -> None:
    sections = [Section(0, Phase.FORWARD, 0)]
    early = Events(events=[0, ~0, 1, 2], sizes=[512, 1024, 2048], sections=sections)
    late = Events(events=[0, 1, ~0, 2], sizes=[512, 1024, 2048], sections=sections)
    assert align(early, late).freed_elsewhere == ((0, 0),)
    assert align(early, early).freed_elsewhere == ()


def test_sizes_are_compared_as_blocks_and_empty_storages_left_out() -> None:
    sections = [Section(0, Phase.FORWARD, 0)]
    first = Events(events=[0, 1], sizes=[500, 0], sections=sections)
    second = Events(events=[0], sizes=[512], sections=sections)
    found = align(first, second)
    assert found.pairs == ((0, 0),)
    assert not found.resized
    assert not found.only_first


def test_sections_are_not_mixed() -> None:
    first = Events(events=[0], sizes=[512], sections=[Section(0, Phase.FORWARD, 0)])
    second = Events(events=[0], sizes=[512], sections=[Section(0, Phase.BACKWARD, 0)])
    found = align(first, second)
    assert (found.only_first, found.only_second) == ((0,), (0,))


@pytest.mark.timeout(60)
def test_tens_of_thousands_of_events_take_seconds() -> None:
    one = sequence(12_000, 1, named=True, sections=1)
    other = sequence(12_000, 2, named=True, sections=1)
    start = time.perf_counter()
    found = align(one, other)
    assert len(found.pairs) > 3_000
    assert time.perf_counter() - start < 30
