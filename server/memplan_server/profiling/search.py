"""The largest batch size that runs and the fastest one, in few runs.

    search = BatchSearch(start=48, multiple=8)
    while (size := search.next()) is not None:
        search.note(size, ran=..., samples_per_second=...)
    search.largest, search.fastest

It starts from what the estimate says is the largest: where that runs, a little above is tried until
something does not; where it does not, less. Then smaller batches are tried while they are about as
fast as the best one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BatchSearch"]

MOST_RUNS = 10
_STEP = 0.06
"""The first step away from the start, as a share of it; each further one is twice as large."""
_CLOSE = 0.03
"""The largest that runs is known well enough when the next that does not is so near."""
_NOT_SLOWER = 0.9
"""Smaller batches are tried while the last has this share of the best one's speed."""


@dataclass(kw_only=True)
class BatchSearch:
    """Decides which micro-batch size to measure next."""

    start: int
    """What the estimate calls the largest."""
    multiple: int = 1
    """Sizes above it are multiples of it."""
    limit: int = 1 << 24
    """None above it is tried."""
    most_runs: int = MOST_RUNS
    speeds: dict[int, float] = field(default_factory=dict)
    """Samples per second of each size that ran."""
    failed: set[int] = field(default_factory=set)
    """Sizes that ran out of memory."""

    def note(self, size: int, *, ran: bool, samples_per_second: float = 0.0) -> None:
        """What a run gave."""
        if ran:
            self.speeds[size] = samples_per_second
        else:
            self.failed.add(size)

    @property
    def largest(self) -> int:
        """The largest that ran; 0: none did."""
        return max(self.speeds, default=0)

    @property
    def fastest(self) -> int:
        """The one with the most samples per second, the smaller of equals; 0: none ran."""
        return max(sorted(self.speeds), key=self.speeds.__getitem__, default=0)

    def next(self) -> int | None:
        """The size to measure next; None when it is done."""
        if len(self.speeds) + len(self.failed) >= self.most_runs:
            return None
        size = self._towards_the_limit()
        return self._towards_the_knee() if size is None else size

    def _towards_the_limit(self) -> int | None:
        """Between what runs and what does not; None when it is near enough."""
        good, bad = self.largest, min(self.failed, default=0)
        if not good and not bad:
            return self._whole(min(self.start, self.limit))
        if not bad:
            return self._above(good)
        if not good:
            below = self._whole(int(bad * (1 - _STEP * 2 ** len(self.failed))))
            below = min(max(below, 1), bad - 1)
            return below or None
        middle = self._whole((good + bad) // 2)
        return middle if bad - good > max(1, good * _CLOSE) and good < middle < bad else None

    def _above(self, good: int) -> int | None:
        """Further up, in growing steps."""
        above = max(good + self.multiple, int(good * (1 + _STEP * 2 ** (len(self.speeds) - 1))))
        above = min(self._whole(above), self.limit)
        return above if above > good else None

    def _towards_the_knee(self) -> int | None:
        """Half of the smallest that ran, while that is about as fast as the best."""
        if not self.speeds:
            return None
        least = min(self.speeds)
        if self.speeds[least] < _NOT_SLOWER * max(self.speeds.values()):
            return None
        half = self._whole(least // 2)
        return half if half and half not in self.speeds else None

    def _whole(self, size: int) -> int:
        return size - size % self.multiple if size > self.multiple else size
