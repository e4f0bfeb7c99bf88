"""The CUDA caching allocator's own history, as events; and replayed through our allocator.

    torch.cuda.memory._record_memory_history(max_entries=MOST_ENTRIES, context=None)
    ...
    history = read_snapshot(torch.cuda.memory._snapshot())
    replay_history(history).same

The format is described at `torch.cuda.memory._snapshot`; the entries that are written, at
`record_trace` in c10/cuda/CUDACachingAllocator.cpp. An `alloc` entry has the size that was asked
for, not the block's. A segment's entry comes before that of the allocation it was needed for.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memplan.types import AllocatorSettings
from memplan_server.allocator import CachingAllocator, OutOfMemory
from memplan_server.allocator.caching import Block

__all__ = ["MOST_ENTRIES", "History", "ReplayedHistory", "read_snapshot", "replay_history"]

MOST_ENTRIES = 4_000_000
"""The allocator keeps the last so many entries; a history that was cut short is refused."""

_TAKEN = ("segment_alloc", "segment_map")
_GIVEN_BACK = ("segment_free", "segment_unmap")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class History:
    """What happened in one allocator, in order. `n` events of `m` storages."""

    events: Sequence[int]
    """[n] `s` where storage `s` was allocated, `~s` where its free was asked for."""
    sizes: Sequence[int]
    """[m] bytes asked for."""
    usable: Sequence[int]
    """The same events with each free where the memory became usable again: later than asked for
    when another stream still used it."""
    reserved: Sequence[int]
    """Bytes of segments right after each allocation, in order of allocation [m]."""
    segments: Sequence[tuple[int, int]]
    """Changes of the reserved bytes: (storages allocated before, bytes; negative: given back)."""
    addresses: Sequence[int] = ()
    """Where the driver put each new segment, in order; empty where they are not known."""
    given_back: Sequence[int] = ()
    """Indices into `usable` of the events right before which segments were given back."""
    out_of_memory_bytes: int | None = None
    """What was asked for when there was no memory."""
    streams: int = 1
    """Streams that memory was allocated for."""

    @property
    def peak_reserved_bytes(self) -> int:
        """The most that the segments held."""
        held = peak = 0
        for _, change in self.segments:
            held += change
            peak = max(peak, held)
        return peak


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayedHistory:
    """A history replayed through our allocator, and where they part."""

    recorded_peak_reserved_bytes: int
    replayed_peak_reserved_bytes: int
    first_difference: int | None
    """The first storage after whose allocation the reserved bytes differ; None: none."""
    differences: int
    """How many storages that holds for."""

    @property
    def same(self) -> bool:
        """Whether the reserved bytes agree after every allocation."""
        return self.first_difference is None


def read_snapshot(snapshot: Mapping[str, Any], device: int = 0) -> History:
    """The history of `device` in what `torch.cuda.memory._snapshot()` returned.

    It must have been on from before the first allocation. Raises ValueError when entries are
    missing.
    """
    traces = snapshot["device_traces"]
    entries: Sequence[Mapping[str, Any]] = traces[device] if device < len(traces) else ()
    if len(entries) >= MOST_ENTRIES:
        raise ValueError(f"the history was cut short at {MOST_ENTRIES:,} entries: run fewer steps")
    reader = _Reader()
    for entry in entries:
        reader.read(entry)
    return reader.history()


class _Reader:
    def __init__(self) -> None:
        self._events: list[int] = []
        self._usable: list[int] = []
        self._sizes: list[int] = []
        self._reserved: list[int] = []
        self._segments: list[tuple[int, int]] = []
        self._addresses: list[int] = []
        self._given_back: dict[int, None] = {}
        self._held = 0
        self._at: dict[int, int] = {}
        self._freed: dict[int, int] = {}
        self._streams: set[int] = set()
        self._out_of_memory: int | None = None

    def read(self, entry: Mapping[str, Any]) -> None:
        action, size = entry["action"], entry["size"]
        if action == "alloc":
            self._allocated(entry["addr"], size)
            self._streams.add(entry.get("stream", 0))
        elif action == "free_requested":
            storage = self._known(self._at.pop(entry["addr"], None), entry)
            self._freed[entry["addr"]] = storage
            self._events.append(~storage)
        elif action == "free_completed":
            storage = self._known(self._freed.pop(entry["addr"], None), entry)
            self._usable.append(~storage)
        elif action in _TAKEN:
            self._changed(size)
            self._addresses.append(entry["addr"])
        elif action in _GIVEN_BACK:
            self._changed(-size)
            self._given_back[len(self._usable)] = None
        elif action == "oom":
            self._out_of_memory = size

    def _allocated(self, address: int, size: int) -> None:
        storage = len(self._sizes)
        self._at[address] = storage
        self._sizes.append(size)
        self._reserved.append(self._held)
        self._events.append(storage)
        self._usable.append(storage)

    def _known(self, storage: int | None, entry: Mapping[str, Any]) -> int:
        if storage is None:
            raise ValueError(
                f"the history frees {entry['size']:,} bytes that it does not allocate: turn it on "
                "before the first allocation"
            )
        return storage

    def _changed(self, size: int) -> None:
        self._held += size
        self._segments.append((len(self._sizes), size))

    def history(self) -> History:
        return History(
            events=self._events,
            sizes=self._sizes,
            usable=self._usable,
            reserved=self._reserved,
            segments=self._segments,
            addresses=self._addresses,
            given_back=tuple(self._given_back),
            out_of_memory_bytes=self._out_of_memory,
            streams=max(1, len(self._streams)),
        )


def replay_history(
    history: History,
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
    *,
    empties_cache: bool = False,
) -> ReplayedHistory:
    """Drive our allocator with the recorded allocations and frees; compare the reserved bytes.

    Segments lie where they lay, which decides between free blocks of equal size.
    `capacity_bytes` is the room that segments had; without it nothing is ever given back, so a
    history that came near the limit needs it. `empties_cache`: the program gave segments back.
    """
    emptied = history.given_back if empties_cache else ()
    allocator = CachingAllocator(settings, capacity_bytes, iter(history.addresses))
    replayed, peak = _replay(history, allocator, emptied)
    differing = [
        storage
        for storage, recorded in enumerate(history.reserved)
        if storage >= len(replayed) or replayed[storage] != recorded
    ]
    return ReplayedHistory(
        recorded_peak_reserved_bytes=history.peak_reserved_bytes,
        replayed_peak_reserved_bytes=peak,
        first_difference=differing[0] if differing else None,
        differences=len(differing),
    )


def _replay(
    history: History, allocator: CachingAllocator, emptied: Container[int]
) -> tuple[list[int], int]:
    """Reserved bytes right after each allocation, up to one that does not fit; and their peak."""
    blocks: dict[int, Block] = {}
    reserved: list[int] = []
    for index, event in enumerate(_without_empty(history)):
        if index in emptied:
            allocator.empty_cache()
        if event < 0:
            allocator.free(blocks.pop(~event))
            continue
        try:
            blocks[event] = allocator.malloc(history.sizes[event])
        except OutOfMemory:
            break
        reserved.append(allocator.reserved_bytes)
    return reserved, max(reserved, default=0)


def _without_empty(history: History) -> Iterable[int]:
    """The allocator never hears of storages without bytes; a history has none."""
    assert all(history.sizes)
    return history.usable
