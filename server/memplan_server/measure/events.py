"""Allocations and frees in the order in which they happened, recorded or simulated.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memplan_server.timeline import Phase

__all__ = ["WORKSPACE", "Events", "Section"]

WORKSPACE = " workspace"
"""`mm workspace`: cuBLAS's, or what a kernel takes for a moment. Only a simulation knows which
allocations are such."""


@dataclass(frozen=True, slots=True)
class Section:
    """Events from `start` on, up to the next section, are of this phase."""

    start: int
    phase: Phase
    step: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Events:
    """`n` events of `m` storages."""

    events: Sequence[int]
    """[n] `s` where storage `s` is allocated, `~s` where it is freed, as in a `Timeline`."""
    sizes: Sequence[int]
    """[m] bytes asked for."""
    operators: Sequence[str] = ()
    """[m] the operator that ran when it was allocated, `convolution`; what is known to be a
    library's workspace ends in `WORKSPACE`. Empty where operators are not known."""
    sections: Sequence[Section] = ()
    """In order; the first one starts at 0."""

    def operator(self, storage: int) -> str:
        """The operator that allocated it, or "unknown"."""
        return self.operators[storage] if self.operators else "unknown"

    def spans(self) -> Iterator[tuple[Section, int, int]]:
        """Each section with where it begins and ends in `events`."""
        ends = [*(section.start for section in self.sections[1:]), len(self.events)]
        for section, end in zip(self.sections, ends, strict=True):
            yield section, section.start, end

    def alive_after(self, index: int) -> set[int]:
        """The storages alive right after event `index`."""
        alive: set[int] = set()
        for event in self.events[: index + 1]:
            if event >= 0:
                alive.add(event)
            else:
                alive.discard(~event)
        return alive
