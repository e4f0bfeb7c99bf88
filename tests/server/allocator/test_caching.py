"""The allocator against one written slowly from the documented rules, byte for byte."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ReferenceAllocator
from test_plain import programs

from memplan.types import AllocatorSettings
from memplan_server.allocator import CachingAllocator, OutOfMemory, replay
from memplan_server.allocator.caching import Block
from memplan_server.allocator.rounding import round_size, segment_size

MIB = 1 << 20

SETTINGS = st.builds(
    AllocatorSettings,
    expandable_segments=st.booleans(),
    roundup_power2_divisions=st.sampled_from((0, 2, 4, 8, 16)),
    max_split_size_mb=st.sampled_from((0, 20, 64, 200)),
).filter(lambda s: not (s.expandable_segments and s.max_split_size_mb))


@settings(max_examples=300, deadline=None)
@given(
    programs(),
    SETTINGS,
    st.none() | st.integers(20 * MIB, 3000 * MIB),
    st.sets(st.integers(0, 60), max_size=4),
)
def test_byte_for_byte(
    program: tuple[list[int], np.ndarray],  # type: ignore[type-arg]
    conf: AllocatorSettings,
    capacity: int | None,
    emptied: set[int],
) -> None:
    events, sizes = program
    model, reference = CachingAllocator(conf, capacity), ReferenceAllocator(conf, capacity)
    blocks: dict[int, Block] = {}
    for index, event in enumerate(events):
        if index in emptied:
            model.empty_cache()
            reference.release_all()
        if event < 0:
            if ~event in blocks:
                model.free(blocks.pop(~event))
                reference.free(~event)
        elif sizes[event]:
            expected = reference.malloc(event, int(sizes[event]))
            try:
                blocks[event] = model.malloc(int(sizes[event]))
            except OutOfMemory:
                assert not expected
                return
            assert expected
        assert model.allocated_bytes == reference.allocated
        assert model.reserved_bytes == reference.reserved
    in_use = sorted((b.address, b.address + b.size) for b in blocks.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(in_use))


@pytest.mark.parametrize(
    ("size", "divisions", "block"),
    [
        (1, 0, 512),
        (512, 0, 512),
        (513, 0, 1024),
        (1200 * MIB, 4, 1280 * MIB),  # PyTorch's notes: 1200 between 1024 and 2048 by fours
        (1024 * MIB, 4, 1024 * MIB),
        (1000, 4, 1024),
    ],
)
def test_rounding(size: int, divisions: int, block: int) -> None:
    assert round_size(size, divisions) == block


@pytest.mark.parametrize(
    ("block", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
    ],
)
def test_segments(block: int, segment: int) -> None:
    assert segment_size(block) == segment


def test_cached_segments_make_room() -> None:
    events, sizes = [0, ~0, 1], np.array([60 * MIB, 80 * MIB])
    assert replay(events, sizes).peak_reserved_bytes == 140 * MIB
    limited = replay(events, sizes, capacity_bytes=100 * MIB)
    assert limited.out_of_memory_event is None
    assert (limited.peak_reserved_bytes, limited.releases) == (80 * MIB, 1)


def test_what_does_not_fit_names_its_event() -> None:
    result = replay([0, 1], np.array([60 * MIB, 80 * MIB]), capacity_bytes=100 * MIB)
    assert result.out_of_memory_event == 1


def test_expandable_segments_do_not_fragment() -> None:
    events = [0, ~0, 1]
    sizes = np.array([60 * MIB, 80 * MIB])
    grown = replay(events, sizes, AllocatorSettings(expandable_segments=True))
    assert grown.peak_reserved_bytes == 80 * MIB


def test_the_oldest_cached_blocks_go_above_the_threshold() -> None:
    conf = AllocatorSettings(garbage_collection_threshold=0.5)
    events, sizes = [0, 1, ~0, ~1, 2], np.array([30 * MIB, 30 * MIB, 35 * MIB])
    kept = replay(events, sizes, AllocatorSettings(), 120 * MIB)
    collected = replay(events, sizes, conf, 120 * MIB)
    assert kept.peak_reserved_bytes == 95 * MIB + MIB  # segments are multiples of 2 MiB
    assert collected.peak_reserved_bytes <= kept.peak_reserved_bytes


def test_an_emptied_cache_keeps_the_segments_in_use() -> None:
    """20 MiB segments: the first is free, of the second a block of 9 MiB is still in use."""
    sizes = np.array([n * MIB for n in (9, 9, 9, 9, 40)])
    events = [0, 1, 2, 3, ~0, ~1, ~2, 4]
    assert replay(events, sizes).peak_reserved_bytes == 80 * MIB
    emptied = replay(events, sizes, cache_emptied=[7])
    assert emptied.peak_reserved_bytes == 60 * MIB
    assert emptied.releases == 0  # nobody was short of memory
    assert replay(events, sizes, cache_emptied=[6]).peak_reserved_bytes == 60 * MIB
    assert replay(events, sizes, cache_emptied=[5]).peak_reserved_bytes == 80 * MIB


def test_of_equal_blocks_that_of_the_newest_segment_is_taken() -> None:
    """The driver puts each segment below those before."""
    allocator = CachingAllocator()
    first, second = allocator.malloc(12 * MIB), allocator.malloc(12 * MIB)
    assert second.address < first.address
    allocator.free(second)
    allocator.free(first)
    assert allocator.malloc(12 * MIB).address == second.address


def test_segments_lie_where_the_driver_is_known_to_put_them() -> None:
    allocator = CachingAllocator(addresses=iter([4096, 8192]))
    blocks = [allocator.malloc(12 * MIB) for _ in range(3)]
    assert [block.address for block in blocks[:2]] == [4096, 8192]
    for block in blocks[:2]:
        allocator.free(block)
    assert allocator.malloc(12 * MIB).address == 4096


def test_the_end_of_a_growing_segment_is_taken_when_nothing_else_serves() -> None:
    allocator = CachingAllocator(AllocatorSettings(expandable_segments=True))
    inner, outer, kept = (allocator.malloc(size * MIB) for size in (8, 2, 6))
    allocator.free(inner)  # 8 MiB between blocks; 4 MiB are left at the end
    assert allocator.malloc(3 * MIB).address == inner.address
    assert allocator.malloc(6 * MIB).address == kept.address + kept.size
    assert outer.size == 2 * MIB
