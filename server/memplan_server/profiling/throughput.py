"""Batch sizes measured one after the other, and what comes of it for the profile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

from memplan.types import MeasuredProfile, ProfileMemoryResponse, ThroughputPoint
from memplan_server.errors import LimitExceeded, TimeLimitExceeded, WorkerFailure
from memplan_server.measure.profiled import Profiled
from memplan_server.planning.batch_size import TENSOR_CORE_MULTIPLE
from memplan_server.profiling.conversion import samples_per_second
from memplan_server.profiling.interface import Asked
from memplan_server.profiling.search import BatchSearch

__all__ = ["Throughput"]

log = logging.getLogger(__name__)

Run = Callable[[Asked], Generator[ProfileMemoryResponse, None, Profiled]]
_TIME_FOR_ANOTHER = 1.5
"""A run may take so many times what the longest has taken."""


@dataclass(kw_only=True)
class Throughput:
    """The job's own batch size first, as that is what was asked about; then the search."""

    asked: Asked
    deadline: float
    """By `time.monotonic()`."""
    run: Run
    start: Callable[[int], int]
    """The largest batch size by estimate, from the bytes that there are."""
    found: dict[int, Profiled] = field(default_factory=dict)
    cut_short: bool = False
    _longest_s: float = 0.0

    def measure(self) -> Generator[ProfileMemoryResponse, None, None]:
        """Run all of them, or those for which there is time; at least the first."""
        own = self.asked.job.micro_batch_size
        yield from self._run(own)
        start = self._first_guess(self.first().memory_limit_bytes) or own
        multiple = TENSOR_CORE_MULTIPLE if start >= TENSOR_CORE_MULTIPLE else 1
        search = BatchSearch(start=start, multiple=multiple)
        while (size := search.next()) is not None:
            if size not in self.found:
                if time.monotonic() + self._longest_s * _TIME_FOR_ANOTHER > self.deadline:
                    self.cut_short = True
                    return
                try:
                    yield from self._run(size)
                except TimeLimitExceeded:  # what has been measured is of use without it
                    self.cut_short = True
                    return
            found = self.found[size]
            search.note(
                size,
                ran=found.measurement.out_of_memory is None,
                samples_per_second=samples_per_second(self.asked.job, found),
            )

    def _first_guess(self, room_bytes: int) -> int:
        """By estimate; 0 where there is none in time, which is no reason to give up."""
        try:
            return self.start(room_bytes)
        except (LimitExceeded, TimeLimitExceeded, WorkerFailure) as error:
            log.warning("the largest batch size could not be estimated: %s", error)
            return 0

    def _run(self, size: int) -> Generator[ProfileMemoryResponse, None, None]:
        began = time.monotonic()
        self.found[size] = yield from self.run(self.asked.at(size))
        self._longest_s = max(self._longest_s, time.monotonic() - began)

    def first(self) -> Profiled:
        """What the job's own batch size gave."""
        return self.found[self.asked.job.micro_batch_size]

    def added_to(self, profile: MeasuredProfile) -> MeasuredProfile:
        """The profile with what each batch size gave."""
        points = tuple(self._point(size) for size in sorted(self.found))
        ran = [point for point in points if not point.out_of_memory]
        notes = profile.notes
        if self.cut_short:
            notes += ("The time limit ended the search for batch sizes before it was done.",)
        return replace(
            profile,
            throughput=points,
            largest_micro_batch_size=max((p.micro_batch_size for p in ran), default=0),
            fastest_micro_batch_size=max(
                ran, key=lambda p: p.samples_per_second, default=ThroughputPoint()
            ).micro_batch_size,
            notes=notes,
        )

    def _point(self, size: int) -> ThroughputPoint:
        found = self.found[size]
        return ThroughputPoint(
            micro_batch_size=size,
            samples_per_second=samples_per_second(self.asked.job, found),
            peak_reserved_bytes=found.measurement.peak_reserved_bytes or 0,
            out_of_memory=found.measurement.out_of_memory is not None,
        )
