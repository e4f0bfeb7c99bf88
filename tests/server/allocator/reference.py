"""A caching allocator written from its documented rules, slowly and without any index.

Segments are lists of pieces; every question is answered by looking at all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from memplan.types import AllocatorSettings

KIB, MIB = 1024, 1 << 20


@dataclass(eq=False)
class Piece:
    size: int
    owner: int | None = None
    """The storage in it; None when free."""


@dataclass(eq=False)
class Segment:
    small: bool
    born: int
    growing: bool = False
    pieces: list[Piece] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(p.size for p in self.pieces)

    def merge(self) -> None:
        merged: list[Piece] = []
        for piece in self.pieces:
            if merged and merged[-1].owner is None and piece.owner is None:
                merged[-1].size += piece.size
            else:
                merged.append(piece)
        self.pieces = merged


class ReferenceAllocator:
    def __init__(self, settings: AllocatorSettings, capacity: int | None) -> None:
        self.settings = settings
        self.capacity = math.inf if capacity is None else capacity
        self.split_limit = settings.max_split_size_mb * MIB or math.inf
        self.segments: list[Segment] = []
        self.born = 0

    @property
    def reserved(self) -> int:
        return sum(s.size for s in self.segments)

    @property
    def allocated(self) -> int:
        return sum(p.size for s in self.segments for p in s.pieces if p.owner is not None)

    def round(self, size: int) -> int:
        divisions = self.settings.roundup_power2_divisions
        if divisions > 1 and size > 512 * divisions:
            power = 2 ** math.floor(math.log2(size))
            if size == power:
                return size
            step = power // divisions
            return math.ceil(size / step) * step
        return max(512, math.ceil(size / 512) * 512)

    def malloc(self, owner: int, size: int) -> bool:
        size = self.round(size)
        small = size <= MIB
        found = self.best_fit(size, small) or self.new(size, small)
        if found is None and self.release_oversize(size, small):
            found = self.new(size, small)
        if found is None:
            self.release_all()
            found = self.new(size, small)
        if found is None:
            return False
        segment, piece = found
        rest = piece.size - size
        if small or self.settings.expandable_segments:
            cut = rest >= 512
        else:
            cut = size < self.split_limit and rest > MIB
        if cut:
            segment.pieces.insert(segment.pieces.index(piece) + 1, Piece(rest))
            piece.size = size
        piece.owner = owner
        return True

    def best_fit(self, size: int, small: bool) -> tuple[Segment, Piece] | None:
        fitting = [
            (self.can_grow(segment, piece), piece.size, -segment.born, index, segment, piece)
            for segment in self.segments
            if segment.small == small
            for index, piece in enumerate(segment.pieces)
            if piece.owner is None and piece.size >= size
        ]
        if not fitting:
            return None
        _, best, _, _, segment, piece = min(fitting, key=lambda f: f[:4])
        if size < self.split_limit <= best:
            return None
        if size >= self.split_limit and best >= size + 20 * MIB:
            return None
        return segment, piece

    def can_grow(self, segment: Segment, piece: Piece) -> bool:
        return self.settings.expandable_segments and piece is segment.pieces[-1]

    def new(self, size: int, small: bool) -> tuple[Segment, Piece] | None:
        if self.settings.expandable_segments:
            return self.grow(size, small)
        if small:
            total = 2 * MIB
        elif size < 10 * MIB:
            total = 20 * MIB
        else:
            total = math.ceil(size / (2 * MIB)) * 2 * MIB
        if self.reserved + total > self.capacity:
            return None
        self.born += 1
        segment = Segment(small, self.born, pieces=[Piece(total)])
        self.segments.append(segment)
        return segment, segment.pieces[0]

    def grow(self, size: int, small: bool) -> tuple[Segment, Piece] | None:
        page = 2 * MIB if small else 20 * MIB
        segment = next((s for s in self.segments if s.small == small), None)
        last = segment.pieces[-1] if segment else None
        spare = last.size if last is not None and last.owner is None else 0
        more = math.ceil((size - spare) / page) * page
        if self.reserved + more > self.capacity:
            return None
        if segment is None:
            segment = Segment(small, born=0 if small else 1)
            self.segments.append(segment)
        segment.pieces.append(Piece(more))
        segment.merge()
        return segment, segment.pieces[-1]

    def free(self, owner: int) -> None:
        for segment in self.segments:
            for piece in segment.pieces:
                if piece.owner == owner:
                    piece.owner = None
                    segment.merge()
                    return

    def cached(self) -> list[Segment]:
        return [s for s in self.segments if len(s.pieces) == 1 and s.pieces[0].owner is None]

    def release_oversize(self, size: int, small: bool) -> bool:
        if self.split_limit == math.inf:
            return False
        needed = max(size, self.split_limit)
        mine = sorted(
            (s for s in self.cached() if s.small == small), key=lambda s: (s.size, s.born)
        )
        enough = [s for s in mine if s.size >= needed]
        chosen, total = [], 0
        for segment in enough[:1] or [s for s in reversed(mine) if s.size >= self.split_limit]:
            if total >= needed:
                break
            chosen.append(segment)
            total += segment.size
        self.segments = [s for s in self.segments if s not in chosen]
        return total >= needed

    def release_all(self) -> None:
        cached = self.cached()
        self.segments = [s for s in self.segments if s not in cached]
