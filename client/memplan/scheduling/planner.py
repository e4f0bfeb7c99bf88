"""The service, asked so that neither a dead nor a frozen one holds a submission up.

    planner = Planner(connect(target))
    future = planner.plan(key, make)            # `make` runs in the background
    if planner.wait(future, patience_s=8, working=lambda: None):
        future.result()

A plan is made in the background, once for equal keys, and goes on when whoever asked stops waiting:
the next submission of the job finds it. Whether the service is alive is a second, cheap question.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from memplan.client import Client
from memplan.errors import MemplanError

__all__ = ["PLAN_TIMEOUT_S", "Planner", "connect"]

log = logging.getLogger(__name__)

T = TypeVar("T")

PLAN_TIMEOUT_S = 60.0
"""Longest time that a plan may take, whether or not somebody waits for it."""
ALIVE_TIMEOUT_S = 0.4
STEP_S = 0.1
"""Time between two signs of life."""
AWAY_S = 2.0
"""For so long after a question without an answer nobody waits for the service."""
KEPT_S = 300.0
MOST_KEPT = 256
THREADS = 8
RECONNECT = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000))


def connect(server: str, *, retries: int | None = None, **how: Any) -> Client:
    """A client that tries once by default, and is soon connected to a service that comes back.

    Takes what `Client` takes. Raises OSError for files that cannot be read and ValueError for
    settings that do not go together.
    """
    return Client(
        server or None, timeout=PLAN_TIMEOUT_S, retries=retries or 0, options=RECONNECT, **how
    )


class Planner(Generic[T]):
    """Plans by key. Safe to use from several threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(THREADS, "plan")
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._plans: OrderedDict[str, tuple[float, Future[T]]] = OrderedDict()

    def close(self) -> None:
        """Start no more plans."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def plan(self, key: str, make: Callable[[], T]) -> Future[T]:
        """What `make` returns for that key, now or lately; raises from its result()."""
        now = time.monotonic()
        with self._lock:
            since, future = self._plans.get(key, (0.0, None))
            failed = future is not None and future.done() and future.exception() is not None
            if future is None or failed or now - since > KEPT_S:
                future = self._pool.submit(make)
                self._plans[key] = (now, future)
                while len(self._plans) > MOST_KEPT:
                    self._plans.popitem(last=False)
            return future

    def wait(
        self, future: Future[T], patience_s: float, working: Callable[[], None] | None
    ) -> bool:
        """Whether the plan is done in that time.

        With `working`, which is called meanwhile, only as long as the service lives.
        """
        now = time.monotonic()
        deadline = now + (patience_s if now >= self._away_until else STEP_S / 2)
        while not _done(future, max(0.0, min(STEP_S, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return future.done()
            if working is not None:
                working()
                if not self._alive():
                    return future.done()
        return True

    def _alive(self) -> bool:
        try:
            next(self._client.list_gpu_types(page_size=1, timeout=ALIVE_TIMEOUT_S), None)
        except MemplanError as error:
            log.info("the service does not answer: %s", error)
            self._away_until = time.monotonic() + AWAY_S
            return False
        return True


def _done(future: Future[T], timeout_s: float) -> bool:
    try:
        future.exception(timeout_s)
    except TimeoutError:
        return False
    return True
