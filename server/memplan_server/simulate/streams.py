"""Streams of the simulated GPU: nothing is done on them but allocations, which say on which.

PyTorch's caching allocator keeps the memory of each stream apart. Source: `get_pool` and
`BlockPool` in c10/cuda/CUDACachingAllocator.cpp.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["DEFAULT", "Event", "Stream", "current", "entered"]


class Event:
    """A moment in a stream, which has been."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Whatever it is asked to measure."""

    def record(self, stream: object = None) -> None:
        """Nothing is done on streams."""

    def wait(self, stream: object = None) -> None:
        """It has been."""

    def synchronize(self) -> None:
        """It has been."""

    def query(self) -> bool:
        """It has been."""
        return True


class Stream:
    """A queue of its own."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Whatever its priority."""

    def wait_stream(self, stream: object) -> None:
        """Nothing is done on streams."""

    def wait_event(self, event: object) -> None:
        """It has been."""

    def record_event(self, event: Event | None = None) -> Event:
        """The moment at which nothing more is queued."""
        return event or Event()

    def synchronize(self) -> None:
        """Nothing is done on streams."""

    def __enter__(self) -> Stream:
        _entered.append(self)
        return self

    def __exit__(self, *raised: Any) -> None:
        _entered.pop()


DEFAULT = Stream()
_entered: list[Stream] = [DEFAULT]


def current(device: object = None) -> Stream:
    """The stream on which memory is allocated."""
    return _entered[-1]


@contextlib.contextmanager
def entered(stream: Stream | None) -> Iterator[None]:
    """Allocate on this stream; on the current one without."""
    with stream or contextlib.nullcontext():
        yield
