"""The fast allocator and the one with every setting do the same at default settings."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.types import AllocatorSettings
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
@given(
    programs(),
    st.floats(0.5, 1.2),
    st.sets(st.integers(0, 60), max_size=4),
    st.one_of(st.just(""), st.text("0001234", min_size=120, max_size=120)),
)
def test_same_replay_with_and_without_a_limit(
    program: tuple[list[int], np.ndarray],  # type: ignore[type-arg]
    share: float,
    places: set[int],
    streams: str,
) -> None:
    events, sizes = program
    where = {
        "cache_emptied": sorted(place for place in places if place < len(events)),
        "streams": [int(stream) for stream in streams[: len(sizes)]],
    }
    free = replay(events, sizes, **where)
    assert free == replay_with(CachingAllocator(), events, sizes, **where)
    assert free.peak_allocated_bytes <= free.peak_reserved_bytes
    unlimited = Unlimited(np.array(events, np.int32), **where)
    assert unlimited.peak_reserved_bytes(sizes) == free.peak_reserved_bytes
    capacity = int(free.peak_reserved_bytes * share)
    limited = replay(events, sizes, capacity_bytes=capacity, **where)
    assert limited == replay_with(CachingAllocator(None, capacity), events, sizes, **where)
    assert limited.peak_reserved_bytes <= capacity


@settings(max_examples=100, deadline=None)
@given(programs(), st.booleans())
def test_streams_share_nothing_but_what_the_driver_has(
    program: tuple[list[int], np.ndarray],  # type: ignore[type-arg]
    expandable: bool,
) -> None:
    events, sizes = program
    chosen = AllocatorSettings(expandable_segments=expandable)
    streams = [index % 2 for index in range(len(sizes))]
    allocators = CachingAllocator(chosen), CachingAllocator(chosen), CachingAllocator(chosen)
    both, *each = allocators
    replay_with(both, events, sizes, streams=streams)
    for stream, alone in enumerate(each):
        own = [e for e in events if (e if e >= 0 else ~e) % 2 == stream]
        replay_with(alone, own, sizes)
    assert both.reserved_bytes == sum(alone.reserved_bytes for alone in each)


def test_more_memory_than_any_card_has() -> None:
    # 40 tensors of 1 TiB, each split off a larger cached block: addresses go beyond 32 TiB.
    tensor = 1 << 40
    sizes = np.array([2 * tensor, tensor] * 40, np.int64)
    events = [e for i in range(0, 80, 2) for e in (i, ~i, i + 1)]
    assert replay(events, sizes) == replay_with(CachingAllocator(), events, sizes)
