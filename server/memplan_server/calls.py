"""One caller's patience: until when it waits, and whether it still does.

    call = Call(timeout_s=30)
    context.add_callback(call.cancel)       # whoever notices that the caller left
    ...
    call.check()                            # TimeLimitExceeded or Cancelled, or nothing

Whatever works for a caller takes its `Call` along, and stops when it says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TypeVar

from memplan_server.errors import Cancelled, TimeLimitExceeded

__all__ = ["Call"]

T = TypeVar("T")
_MOST = 0.75


class Call:
    """A deadline and a way to cancel. Safe to use from several threads."""

    def __init__(self, timeout_s: float | None = None) -> None:
        """`timeout_s` seconds from now, or no deadline."""
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def cancel(self) -> None:
        """The caller went away: whoever waits for it stops. Further times do nothing."""
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    @contextmanager
    def when_cancelled(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, `callback` is called when the caller goes away; at once if it has."""
        with self._lock:
            gone = self._cancelled
            if not gone:
                self._callbacks.append(callback)
        if gone:
            callback()
        try:
            yield
        finally:
            with self._lock, suppress(ValueError):  # it has been called
                self._callbacks.remove(callback)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, not below 0; None without one."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def has_most_left(self) -> bool:
        """Whether three quarters of the time are left: enough for what could be done without."""
        remaining = self.remaining_s()
        return remaining is None or remaining > _MOST * (self._timeout_s or 0.0)

    def check(self) -> None:
        """Raise Cancelled or TimeLimitExceeded when there is nobody left to work for."""
        if self._cancelled:
            raise Cancelled("The caller went away.")
        if self.remaining_s() == 0:
            raise TimeLimitExceeded("Not done in the time that the call had.")

    def wait(self, future: Future[T]) -> T:
        """The result of `future`, or what it raised, or what `check` raises, whichever is first."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        with self._lock:
            self._callbacks.append(done.set)
            if self._cancelled:
                done.set()
        done.wait(self.remaining_s())
        if not future.done():
            self.check()
            raise TimeLimitExceeded("Not done in the time that the call had.")
        return future.result()
