"""The caching allocator: blocks cut from segments, best fit, merged when freed.

Source: c10/cuda/CUDACachingAllocator.cpp (`malloc`, `get_free_block`, `should_split`, `free_block`,
`try_merge_blocks`, `release_available_cached_blocks`, `release_cached_blocks`,
`garbage_collect_cached_blocks`, `try_allocate_expandable_block`).

Known limitations: no private pools (CUDA graphs); what one stream allocates and another uses is
free at once when the program lets go of it (`record_stream` is not modelled). Of expandable
segments only whole ones are given back, not free pages between blocks in use.

Among free blocks of equal size the one with the lowest address is taken, so it matters where the
driver puts segments. Most often it puts each below those before (`docs/measuring.md` has figures);
a small one may get a gap that was left between two, which is not modelled.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from memplan.types import AllocatorSettings
from memplan_server.allocator import rounding

__all__ = ["UNLIMITED", "Block", "CachingAllocator", "OutOfMemory"]

_MIB = 1 << 20
UNLIMITED = 1 << 62
_Key = tuple[int, int]
"""(size, address): the order of a pool's free blocks."""


class OutOfMemory(Exception):
    """The driver has no room for a segment, even with every cached segment given back."""


@dataclass(slots=True, eq=False)
class Block:
    """A piece of a segment."""

    address: int
    size: int
    pool: _Pool
    free: bool = False
    previous: Block | None = None
    next: Block | None = None
    mapped: bool = True
    """Expandable segments only: whether there is memory behind its addresses."""
    age: int = 0
    """Allocations of its pool since it was last freed."""

    @property
    def whole(self) -> bool:
        """Whether it is all of its segment."""
        return self.previous is None and self.next is None


@dataclass(slots=True, eq=False)
class _Pool:
    """Of a stream and a kind of size."""

    small: bool
    start: int
    """Where its expandable segment begins."""
    keys: list[_Key] = field(default_factory=list)
    blocks: dict[int, Block] = field(default_factory=dict)
    """Free blocks by address."""
    tail: Block | None = None
    """The last block of the expandable segment."""

    def add(self, block: Block) -> None:
        insort(self.keys, (block.size, block.address))
        self.blocks[block.address] = block

    def remove(self, block: Block) -> None:
        del self.keys[bisect_left(self.keys, (block.size, block.address))]
        del self.blocks[block.address]


class CachingAllocator:
    """`malloc(size) -> Block`, `free(block)`.

    `capacity_bytes` is what the driver can give (without the CUDA context); None is no limit.
    `addresses` are those that the driver gives to segments, in order, where they are known.
    """

    def __init__(
        self,
        settings: AllocatorSettings | None = None,
        capacity_bytes: int | None = None,
        addresses: Iterator[int] | None = None,
    ) -> None:
        settings = settings or AllocatorSettings()
        self.allocated_bytes = 0
        """Bytes of blocks in use."""
        self.reserved_bytes = 0
        """Bytes of segments taken from the driver."""
        self.releases = 0
        """Times cached segments were given back to make room."""
        self._capacity = UNLIMITED if capacity_bytes is None else capacity_bytes
        self._expandable = settings.expandable_segments
        self._divisions = settings.roundup_power2_divisions
        self._max_split = settings.max_split_size_mb * _MIB or UNLIMITED
        self._gc_threshold = settings.garbage_collection_threshold
        self._pools: dict[tuple[int, bool], _Pool] = {}
        self._addresses = addresses
        self._lowest_address = 1 << 59

    def malloc(self, size: int, stream: int = 0) -> Block:
        """A block of at least `size` bytes, of segments of this stream. Raises `OutOfMemory`."""
        size = rounding.round_size(size, self._divisions)
        pool = self._pool(stream, small=size <= rounding.SMALL_SIZE)
        block = self._find(pool, size) or self._make_room(pool, size)
        if self._should_split(block, size):
            self._split(block, size)
        block.free = False
        self.allocated_bytes += block.size
        return block

    def free(self, block: Block) -> None:
        """Give a block back to its pool; neighbours that are free become one with it."""
        assert not block.free
        self.allocated_bytes -= block.size
        pool = block.pool
        before, after = block.previous, block.next
        if before is not None and before.free and before.mapped:
            pool.remove(before)
            block = self._join(before, block)
        if after is not None and after.free and after.mapped:
            pool.remove(after)
            block = self._join(block, after)
        block.free, block.age = True, 0
        pool.add(block)

    def empty_cache(self) -> None:
        """Give every segment without a block in use back to the driver (`emptyCache`)."""
        for pool in self._pools.values():
            for block in [b for b in pool.blocks.values() if b.whole]:
                self._release(block)

    def _pool(self, stream: int, *, small: bool) -> _Pool:
        key = stream, small
        if key not in self._pools:
            self._pools[key] = _Pool(small=small, start=len(self._pools) << 60)
        return self._pools[key]

    def _join(self, first: Block, second: Block) -> Block:
        first.size += second.size
        first.next = second.next
        if second.next is not None:
            second.next.previous = first
        elif first.pool.tail is second:
            first.pool.tail = first
        return first

    def _find(self, pool: _Pool, size: int) -> Block | None:
        """The smallest free block that serves (`get_free_block`)."""
        if self._gc_threshold:
            for block in pool.blocks.values():
                block.age += 1
        index = bisect_left(pool.keys, (size, -1))
        if index == len(pool.keys):
            return None
        if pool.blocks[pool.keys[index][1]] is pool.tail and index + 1 < len(pool.keys):
            index += 1  # it counts as large as it can grow, so that any other fits better
        found, address = pool.keys[index]
        if size < self._max_split <= found:
            return None
        if size >= self._max_split and found >= size + rounding.LARGE_BUFFER:
            return None
        block = pool.blocks[address]
        pool.remove(block)
        return block

    def _should_split(self, block: Block, size: int) -> bool:
        rest = block.size - size
        if block.pool.small or self._expandable:
            return rest >= rounding.MIN_BLOCK_SIZE
        return size < self._max_split and rest > rounding.SMALL_SIZE

    def _split(self, block: Block, size: int) -> None:
        rest = Block(
            address=block.address + size,
            size=block.size - size,
            pool=block.pool,
            free=True,
            previous=block,
            next=block.next,
        )
        if block.next is not None:
            block.next.previous = rest
        elif block.pool.tail is block:
            block.pool.tail = rest
        block.next, block.size = rest, size
        block.pool.add(rest)

    def _make_room(self, pool: _Pool, size: int) -> Block:
        """A new segment; when the driver has none left, cached ones are given back first."""
        self._collect_garbage()
        block = self._new_segment(pool, size)
        if block is None and self._release_available(pool, size):
            block = self._new_segment(pool, size)
        if block is None:
            self.releases += 1
            self.empty_cache()
            block = self._new_segment(pool, size)
        if block is None:
            raise OutOfMemory
        return block

    def _new_segment(self, pool: _Pool, size: int) -> Block | None:
        if self._expandable:
            return self._extend(pool, size)
        total = rounding.segment_size(size)
        if self.reserved_bytes + total > self._capacity:
            return None
        self.reserved_bytes += total
        return Block(address=self._place(total), size=total, pool=pool)

    def _place(self, size: int) -> int:
        """Where the driver puts a segment."""
        known = None if self._addresses is None else next(self._addresses, None)
        if known is not None:
            return known
        self._lowest_address -= size + rounding.MIN_BLOCK_SIZE  # segments are never neighbours
        return self._lowest_address

    def _extend(self, pool: _Pool, size: int) -> Block | None:
        """Map more memory at the end of the pool's expandable segment."""
        tail = pool.tail
        spare = tail.size if tail is not None and tail.free else 0
        page = rounding.SMALL_BUFFER if pool.small else rounding.LARGE_BUFFER
        missing = -(-(size - spare) // page) * page
        if self.reserved_bytes + missing > self._capacity:
            return None
        self.reserved_bytes += missing
        if tail is not None and spare:
            pool.remove(tail)
            tail.size += missing
            return tail
        start = pool.start if tail is None else tail.address + tail.size
        block = Block(address=start, size=missing, pool=pool, previous=tail)
        if tail is not None:
            tail.next = block
        pool.tail = block
        return block

    def _release_available(self, pool: _Pool, size: int) -> bool:
        """With max_split_size_mb, give back one oversize block that is large enough, or several."""
        if self._max_split == UNLIMITED:
            return False
        needed = max(size, self._max_split)
        index = bisect_left(pool.keys, (needed, -1))
        candidates = pool.keys[index : index + 1] or [
            key for key in reversed(pool.keys) if key[0] >= self._max_split
        ]
        released = 0
        for block_size, address in candidates:
            if released >= needed:
                break
            released += block_size
            self._release(pool.blocks[address])
        return released >= needed

    def _release(self, block: Block) -> None:
        block.pool.remove(block)
        self.reserved_bytes -= block.size
        if block.pool.tail is block:
            block.pool.tail = None

    def _collect_garbage(self) -> None:
        """Give back the oldest cached blocks above garbage_collection_threshold of the capacity."""
        if not self._gc_threshold or self._capacity == UNLIMITED:
            return
        excess = self.reserved_bytes - int(self._gc_threshold * self._capacity)
        while excess > 0:
            large = (pool for pool in self._pools.values() if not pool.small)
            whole = [b for pool in large for b in pool.blocks.values() if b.whole]
            if not whole:
                return
            mean = sum(b.age for b in whole) / len(whole)
            for block in [b for b in whole if b.age >= mean]:
                if excess <= 0:
                    return
                excess -= block.size
                self._release(block)
