"""Sizes as the caching allocator rounds them.

Source: c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h; constants keep their
names.
"""

from __future__ import annotations

__all__ = [
    "LARGE_BUFFER",
    "MIN_BLOCK_SIZE",
    "SMALL_BUFFER",
    "SMALL_SIZE",
    "round_size",
    "segment_size",
]

MIN_BLOCK_SIZE = 512
"""kMinBlockSize: every size is a multiple of it."""
SMALL_SIZE = 1 << 20
"""kSmallSize: up to this a request goes to the small pool."""
SMALL_BUFFER = 2 << 20
"""kSmallBuffer: segments of the small pool."""
LARGE_BUFFER = 20 << 20
"""kLargeBuffer: segments for requests of the large pool below kMinLargeAlloc."""
MIN_LARGE_ALLOC = 10 << 20
"""kMinLargeAlloc: from this on a request has a segment of its own size."""
ROUND_LARGE = 2 << 20
"""kRoundLarge: ... rounded up to a multiple of this."""


def round_size(size: int, power2_divisions: int = 0) -> int:
    """Bytes of the block that serves a request of `size` bytes (`round_size`).

    `power2_divisions` is roundup_power2_divisions: sizes are rounded up to one of that many equal
    steps between two powers of two; 0 is off.
    """
    if size < MIN_BLOCK_SIZE:
        return MIN_BLOCK_SIZE
    if power2_divisions > 1 and size > MIN_BLOCK_SIZE * power2_divisions:
        return _round_to_division(size, power2_divisions)
    return -(-size // MIN_BLOCK_SIZE) * MIN_BLOCK_SIZE


def _round_to_division(size: int, divisions: int) -> int:
    """`roundup_power2_next_division`."""
    if size & (size - 1) == 0:
        return size
    step = (1 << (size.bit_length() - 1)) // divisions
    return -(-size // step) * step


def segment_size(size: int) -> int:
    """Bytes asked of the driver for a block of `size` bytes (`get_allocation_size`)."""
    if size <= SMALL_SIZE:
        return SMALL_BUFFER
    if size < MIN_LARGE_ALLOC:
        return LARGE_BUFFER
    return -(-size // ROUND_LARGE) * ROUND_LARGE
