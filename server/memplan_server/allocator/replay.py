"""A timeline replayed through the caching allocator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.types import AllocatorSettings
from memplan_server.allocator.caching import UNLIMITED, Block, CachingAllocator, OutOfMemory
from memplan_server.allocator.plain import PlainAllocator, segment_units, units
from memplan_server.allocator.rounding import MIN_BLOCK_SIZE
from memplan_server.timeline import Int64

__all__ = ["Replay", "replay", "replay_with"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What the allocator went through."""

    peak_allocated_bytes: int
    """torch.cuda.max_memory_allocated()."""
    peak_reserved_bytes: int
    """torch.cuda.max_memory_reserved()."""
    peak_event: int
    """Index of the event at which the allocated peak is reached; -1 when nothing is allocated."""
    out_of_memory_event: int | None
    """Index of the event that did not fit; None when all did."""
    releases: int
    """Times cached segments were given back to make room."""


def replay(
    events: Sequence[int],
    sizes: Int64,
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
    *,
    cache_emptied: Sequence[int] = (),
    streams: Sequence[int] = (),
) -> Replay:
    """Replay `events` (`s`: storage `s` is allocated, `~s`: it is freed) with `sizes` [m] in bytes.

    `capacity_bytes` is what the driver can give, the CUDA context not counted; None is no limit.
    `cache_emptied` are the indices of events, rising, before which torch.cuda.empty_cache() is
    called; `streams` [m] the CUDA stream of each storage, empty when all are on one.
    """
    if settings is None or settings == AllocatorSettings():
        return _replay_plain(events, sizes, capacity_bytes, cache_emptied, streams)
    allocator = CachingAllocator(settings, capacity_bytes)
    return replay_with(allocator, events, sizes, cache_emptied=cache_emptied, streams=streams)


def _replay_plain(
    events: Sequence[int],
    sizes: Int64,
    capacity_bytes: int | None,
    cache_emptied: Sequence[int],
    streams: Sequence[int],
) -> Replay:
    blocks = units(sizes)
    allocator = PlainAllocator(
        UNLIMITED if capacity_bytes is None else capacity_bytes // MIN_BLOCK_SIZE
    )
    segments = segment_units(blocks).tolist()
    allocator.run(list(events), blocks.tolist(), segments, cache_emptied, streams)
    return Replay(
        peak_allocated_bytes=allocator.peak_allocated * MIN_BLOCK_SIZE,
        peak_reserved_bytes=allocator.peak_reserved * MIN_BLOCK_SIZE,
        peak_event=allocator.peak_event,
        out_of_memory_event=allocator.failed_event,
        releases=allocator.releases,
    )


def replay_with(
    allocator: CachingAllocator,
    events: Sequence[int],
    sizes: Int64,
    *,
    cache_emptied: Sequence[int] = (),
    streams: Sequence[int] = (),
) -> Replay:
    """Replay through this allocator."""
    wanted, emptied = sizes.tolist(), set(cache_emptied)
    blocks: dict[int, Block] = {}
    allocated = reserved = 0
    peak_event, failed = -1, None
    for index, event in enumerate(events):
        if index in emptied:
            allocator.empty_cache()
        if event < 0:
            block = blocks.pop(~event, None)
            if block is not None:
                allocator.free(block)
            continue
        if not wanted[event]:
            continue  # a tensor without elements has no block
        try:
            stream = streams[event] if streams else 0
            blocks[event] = allocator.malloc(wanted[event], stream)
        except OutOfMemory:
            failed = index
            break
        reserved = max(reserved, allocator.reserved_bytes)
        if allocator.allocated_bytes > allocated:
            allocated, peak_event = allocator.allocated_bytes, index
    return Replay(
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved,
        peak_event=peak_event,
        out_of_memory_event=failed,
        releases=allocator.releases,
    )
