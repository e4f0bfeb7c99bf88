"""A timeline replayed through the caching allocator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.types import AllocatorSettings
from memplan_server.allocator.caching import Block, CachingAllocator, OutOfMemory

__all__ = ["Replay", "replay"]


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
    sizes: Sequence[int],
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
) -> Replay:
    """Replay `events` (`s`: storage `s` is allocated, `~s`: it is freed) with `sizes` in bytes.

    `capacity_bytes` is what the driver can give, the CUDA context not counted.
    """
    allocator = CachingAllocator(settings, capacity_bytes)
    blocks: dict[int, Block] = {}
    allocated = reserved = 0
    peak_event, failed = -1, None
    for index, event in enumerate(events):
        if event < 0:
            block = blocks.pop(~event, None)
            if block is not None:
                allocator.free(block)
            continue
        if not sizes[event]:
            continue  # a tensor without elements has no block
        try:
            blocks[event] = allocator.malloc(sizes[event])
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
