"""The caching allocator at its default settings, without objects: for replaying often.

The same rules as `caching.CachingAllocator`, which tests hold it against. Sizes and addresses are
in units of 512 bytes; a free block is one integer, size above address, so that a sorted list of
them is the order of best fit, and neighbours are found by the address where they start or end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from memplan_server.allocator.rounding import (
    LARGE_BUFFER,
    MIN_BLOCK_SIZE,
    MIN_LARGE_ALLOC,
    ROUND_LARGE,
    SMALL_BUFFER,
    SMALL_SIZE,
)
from memplan_server.timeline import Int32, Int64

__all__ = ["PlainAllocator", "Unlimited", "segment_units", "units"]

_ADDRESS_BITS = 60
_ADDRESS = (1 << _ADDRESS_BITS) - 1
"""No address is used twice, so that a card that is filled and given back often needs many times its
size of them."""
_SMALL = SMALL_SIZE // MIN_BLOCK_SIZE


def units(sizes: Int64) -> Int64:
    """Block sizes in units of 512 bytes; 0 for tensors without elements."""
    return -(-sizes // MIN_BLOCK_SIZE)


def segment_units(blocks: Int64) -> Int64:
    """Segment that each block would need, in units (`get_allocation_size`)."""
    step = ROUND_LARGE // MIN_BLOCK_SIZE
    own = -(-blocks // step) * step
    buffer = np.where(
        blocks < MIN_LARGE_ALLOC // MIN_BLOCK_SIZE, LARGE_BUFFER // MIN_BLOCK_SIZE, own
    )
    small = SMALL_BUFFER // MIN_BLOCK_SIZE
    return np.where(blocks <= _SMALL, small, buffer).astype(np.int64)


class PlainAllocator:
    """`run(events, blocks, segments)`: what the default allocator goes through, in units."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reserved = 0
        self.peak_reserved = 0
        self.peak_allocated = 0
        self.peak_event = -1
        self.failed_event: int | None = None
        self.releases = 0
        self._allocated = 0
        self._address_of: list[int] = []
        self._size_of: list[int] = []
        self._pools: dict[tuple[int, bool], list[int]] = {}
        self._size_from: dict[int, int] = {}
        self._start_of: dict[int, int] = {}
        self._segments: dict[int, int] = {}
        self._lowest_address = _ADDRESS

    def run(
        self,
        events: list[int],
        blocks: list[int],
        segments: list[int],
        cache_emptied: Sequence[int] = (),
        streams: Sequence[int] = (),
    ) -> None:
        """Replay all events, or up to the first that does not fit.

        `cache_emptied`: indices of events, rising, before which the cache is emptied. `streams`:
        that of each storage; empty when all are on one.
        """
        self._address_of, self._size_of = [0] * len(blocks), [0] * len(blocks)
        pools = self._pools_of(blocks, streams or [0] * len(blocks))
        start = 0
        for stop in cache_emptied:
            self._run(events[start:stop], start, blocks, segments, pools)
            if self.failed_event is not None:
                return
            self._empty_cache()
            start = stop
        self._run(events[start:], start, blocks, segments, pools)

    def _pools_of(self, blocks: list[int], streams: Sequence[int]) -> list[list[int]]:
        """The pool of each storage: its free blocks, smallest first."""
        return [
            self._pools.setdefault((stream, need <= _SMALL), [])
            for need, stream in zip(blocks, streams, strict=True)
        ]

    def _run(
        self,
        events: list[int],
        first: int,
        blocks: list[int],
        segments: list[int],
        pools: list[list[int]],
    ) -> None:
        """Replay these events, of which the first has this index."""
        address_of, size_of = self._address_of, self._size_of
        size_from, start_of = self._size_from, self._start_of
        allocated = self._allocated
        for index, event in enumerate(events, first):
            if event < 0:
                address, size = address_of[~event], size_of[~event]
                allocated -= size
                keys = pools[~event]
                if after := size_from.pop(address + size, 0):
                    del keys[bisect_left(keys, after << _ADDRESS_BITS | address + size)]
                    size += after
                if start := start_of.pop(address, 0):
                    del keys[bisect_left(keys, address - start << _ADDRESS_BITS | start)]
                    address, size = start, size + address - start
                if size:
                    insort(keys, size << _ADDRESS_BITS | address)
                    size_from[address], start_of[address + size] = size, address
                continue
            need = blocks[event]
            if not need:
                continue
            keys = pools[event]
            place = bisect_left(keys, need << _ADDRESS_BITS)
            if place < len(keys):
                key = keys.pop(place)
                address, size = key & _ADDRESS, key >> _ADDRESS_BITS
                del size_from[address], start_of[address + size]
            else:
                size = segments[event]
                address = self._new_segment(size)
                if not address:
                    self.failed_event = index
                    return
            rest = size - need
            if rest > (0 if need <= _SMALL else _SMALL):
                insort(keys, rest << _ADDRESS_BITS | address + need)
                size_from[address + need], start_of[address + size] = rest, address + need
                size = need
            address_of[event], size_of[event] = address, size
            allocated += size
            if allocated > self.peak_allocated:
                self.peak_allocated, self.peak_event = allocated, index
        self._allocated = allocated

    def _new_segment(self, size: int) -> int:
        """Its address; 0 when there is no room even after giving back what is cached."""
        if self.reserved + size > self.capacity:
            self.releases += 1
            self._empty_cache()
            if self.reserved + size > self.capacity:
                return 0
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._lowest_address -= size + 1  # segments are never neighbours
        self._segments[self._lowest_address] = size
        return self._lowest_address

    def _empty_cache(self) -> None:
        for keys in self._pools.values():
            kept = []
            for key in keys:
                address, size = key & _ADDRESS, key >> _ADDRESS_BITS
                if self._segments.get(address) != size:
                    kept.append(key)
                    continue
                del (
                    self._segments[address],
                    self._size_from[address],
                    self._start_of[address + size],
                )
                self.reserved -= size
            keys[:] = kept


class Unlimited:
    """Peak reserved bytes of the same events at many sizes, the driver having room for everything.

    Without a limit nothing is given back, so the pools do not meet: those of large blocks are
    replayed alone, and those of small ones, whose sizes rarely depend on the batch size, once for
    all that share them. Not so when the program empties the cache: then they are replayed together.
    """

    def __init__(
        self, events: Int32, cache_emptied: Sequence[int] = (), streams: Sequence[int] = ()
    ) -> None:
        self._events = events
        self._cache_emptied = cache_emptied
        self._streams = streams
        self._storage = np.where(events >= 0, events, ~events)
        self._sign = np.where(events >= 0, 1, -1)
        self._small: dict[bytes, int] = {}

    def peak_allocated_bytes(self, sizes: Int64) -> int:
        """Peak of what the blocks hold, each cut to its rounded size: no allocator holds less."""
        change = units(sizes)[self._storage] * self._sign
        return int(np.cumsum(change).max(initial=0)) * MIN_BLOCK_SIZE

    def peak_reserved_bytes(self, sizes: Int64) -> int:
        """`sizes`: [m] bytes asked for by each storage."""
        blocks = units(sizes)
        if self._cache_emptied:
            return self._peak(self._events, blocks) * MIN_BLOCK_SIZE
        small = blocks <= _SMALL
        key = np.where(small, blocks, -1).astype(np.int32).tobytes()
        if key not in self._small:
            self._small[key] = self._peak(self._events[small[self._storage]], blocks)
        large = self._peak(self._events[~small[self._storage]], blocks)
        return (self._small[key] + large) * MIN_BLOCK_SIZE

    def _peak(self, events: Int32, blocks: Int64) -> int:
        allocator = PlainAllocator(1 << 62)
        segments = segment_units(blocks).tolist()
        allocator.run(
            events.tolist(), blocks.tolist(), segments, self._cache_emptied, self._streams
        )
        return allocator.peak_reserved
