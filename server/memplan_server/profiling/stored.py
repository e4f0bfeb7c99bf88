"""Keeps what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from memplan.types import ProfileMemoryResponse
from memplan_server.calls import Call
from memplan_server.profiles import ProfileStore
from memplan_server.profiling.interface import Asked, Profiler

__all__ = ["StoringProfiler"]


@dataclass(frozen=True, slots=True)
class StoringProfiler:
    """A `Profiler` around another one: profiles get their ids here."""

    inner: Profiler
    store: ProfileStore

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """See `Profiler.profile`."""
        for event in self.inner.profile(asked, call):
            if event.profile is None:
                yield event
            else:
                yield replace(event, profile=self.store.add(event.profile))
