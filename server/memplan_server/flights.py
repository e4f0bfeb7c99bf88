"""Work that several callers wait for and that is done once.

    result = flights.result(key, start, call)

The first caller with a key starts the work, later ones join it. Each waits no longer than its own
deadline; when the last one leaves, the work is stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from memplan_server.calls import Call

__all__ = ["Flight", "Flights", "then"]

T = TypeVar("T")
U = TypeVar("U")


@dataclass(slots=True)
class Flight(Generic[T]):
    """Work under way."""

    future: Future[T]
    cancel: Callable[[], None] = field(default=lambda: None)
    waiters: int = 0


class Flights(Generic[T]):
    """The work under way, by key. Safe to use from several threads."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight[T]] = {}
        self._lock = threading.Lock()

    def result(self, key: str, start: Callable[[], Flight[T]], call: Call) -> T:
        """The result of the work under `key`, or what it or `call` raises.

        `start` is called when there is none; it must return at once and must not ask for a flight.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = start()
            flight.waiters += 1
        try:
            return call.wait(flight.future)
        finally:
            self._leave(key, flight)

    def _leave(self, key: str, flight: Flight[T]) -> None:
        with self._lock:
            flight.waiters -= 1
            last = flight.waiters == 0
            if (last or flight.future.done()) and self._flights.get(key) is flight:
                del self._flights[key]
        if last:
            flight.cancel()


def then(future: Future[T], function: Callable[[T], U]) -> Future[U]:
    """A future of what `function` makes of the result of `future`."""
    following: Future[U] = Future()

    def follow(done: Future[T]) -> None:
        try:
            following.set_result(function(done.result()))
        except Exception as error:
            following.set_exception(error)

    future.add_done_callback(follow)
    return following
