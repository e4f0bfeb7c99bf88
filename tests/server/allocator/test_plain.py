"""The fast allocator and the one with every setting do the same at default settings."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan_server.allocator import CachingAllocator, Unlimited, replay, replay_with

SIZES = st.one_of(st.integers(0, 4096), st.integers(0, 3 << 20), st.integers(0, 300 << 20))


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:  # type: ignore[type-arg]
    """Events of a program that frees what it allocated, in any order, and the sizes."""
    sizes: list[int] = []
    alive: list[int] = []
    events: list[int] = []
    for free, choice, size in draw(
        st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 16), SIZES), max_size=120)
    ):
        if free and alive:
            events.append(~alive.pop(choice % len(alive)))
        else:
            alive.append(len(sizes))
            events.append(len(sizes))
            sizes.append(size)
    return events, np.array(sizes, np.int64)


@settings(max_examples=200, deadline=None)
@given(programs(), st.floats(0.5, 1.2), st.sets(st.integers(0, 60), max_size=4))
def test_same_replay_with_and_without_a_limit(
    program: tuple[list[int], np.ndarray],  # type: ignore[type-arg]
    share: float,
    places: set[int],
) -> None:
    events, sizes = program
    emptied = sorted(place for place in places if place < len(events))
    free = replay(events, sizes, cache_emptied=emptied)
    assert free == replay_with(CachingAllocator(), events, sizes, cache_emptied=emptied)
    assert free.peak_allocated_bytes <= free.peak_reserved_bytes
    unlimited = Unlimited(np.array(events, np.int32), emptied)
    assert unlimited.peak_reserved_bytes(sizes) == free.peak_reserved_bytes
    capacity = int(free.peak_reserved_bytes * share)
    limited = replay(events, sizes, capacity_bytes=capacity, cache_emptied=emptied)
    allocator = CachingAllocator(None, capacity)
    assert limited == replay_with(allocator, events, sizes, cache_emptied=emptied)
    assert limited.peak_reserved_bytes <= capacity


def test_more_memory_than_any_card_has() -> None:
    # 40 tensors of 1 TiB, each split off a larger cached block: addresses go beyond 32 TiB.
    tensor = 1 << 40
    sizes = np.array([2 * tensor, tensor] * 40, np.int64)
    events = [e for i in range(0, 80, 2) for e in (i, ~i, i + 1)]
    assert replay(events, sizes) == replay_with(CachingAllocator(), events, sizes)
