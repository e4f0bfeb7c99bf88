"""One job at a time on each device, and a bounded queue before them that is fair between peers.

    queue = DeviceQueue(devices, most_waiting=16)
    with queue.place("10.0.0.7", time_limit_s=60, suitable=lambda d: True) as place:
        while (waiting := queue.wait(place, timeout_s=1)) is not None:
            ...                         # waiting.position, waiting.expected_s
        place.device                    # its own until the block ends

Peers take turns: of those who wait, the one served least recently comes first, whatever the number
of jobs it has there.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from memplan_server.errors import LimitExceeded
from memplan_server.profiling.devices import Device

__all__ = ["DeviceQueue", "Place", "Waiting"]


@dataclass(slots=True, eq=False)
class Place:
    """A place in the queue, and later a device."""

    peer: str
    time_limit_s: float
    devices: frozenset[Device]
    """Those it may have."""
    arrival: int
    device: Device | None = None
    began: float = 0.0
    measuring: bool = False
    """Whether its process runs: before, others may be on the device."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How one that waits stands."""

    position: int
    """Jobs before it."""
    expected_s: float
    """Time it will likely have to wait, by the time limits of those before it."""


class DeviceQueue:
    """Safe to use from several threads."""

    def __init__(self, devices: Sequence[Device], *, most_waiting: int) -> None:
        self.devices = tuple(devices)
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._waiting: list[Place] = []
        self._running: dict[Device, Place] = {}
        self._served: dict[str, int] = {}
        """When each peer of late was served, by a counter."""
        self._count = itertools.count(1)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextmanager
    def place(
        self, peer: str, *, time_limit_s: float, suitable: Callable[[Device], bool]
    ) -> Iterator[Place]:
        """A place in the queue and on a device, given up at the end of the block.

        There must be a suitable device. Raises LimitExceeded when the queue is full.
        """
        devices = frozenset(filter(suitable, self.devices))
        assert devices
        place = Place(peer, time_limit_s, devices, next(self._count))
        with self._changed:
            self._waiting.append(place)
            self._assign()
            if place.device is None and len(self._waiting) > self._most_waiting:
                retry_s = self._standing(place).expected_s
                self._waiting.remove(place)
                raise LimitExceeded(
                    f"{self._most_waiting} profiles wait already, as many as may. Try again later.",
                    max(1.0, retry_s),
                )
        try:
            yield place
        finally:
            self._leave(place)

    def wait(self, place: Place, timeout_s: float) -> Waiting | None:
        """How it stands after a change, or after `timeout_s`; None when it has a device."""
        with self._changed:
            if place.device is None:
                self._changed.wait(timeout_s)
            return None if place.device is not None else self._standing(place)

    def standing(self, place: Place) -> Waiting | None:
        """How it stands now; None when it has a device."""
        with self._changed:
            return None if place.device is not None else self._standing(place)

    def is_measuring(self, device: Device) -> bool:
        """Whether the process of a job runs on it."""
        with self._changed:
            return device in self._running and self._running[device].measuring

    def pause(self, seconds: float) -> None:
        """Wait so long, or until something changes."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """Have everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def _leave(self, place: Place) -> None:
        with self._changed:
            if place.device is None:
                self._waiting.remove(place)
            else:
                del self._running[place.device]
            self._assign()
            self._changed.notify_all()

    def _assign(self) -> None:
        for place in self._in_order():
            free = next((d for d in self.devices if self._is_free_for(d, place)), None)
            if free is not None:
                place.device, place.began = free, time.monotonic()
                self._running[free] = place
                self._waiting.remove(place)
                self._served[place.peer] = next(self._count)
        present = {p.peer for p in (*self._waiting, *self._running.values())}
        self._served = {p: n for p, n in self._served.items() if p in present}

    def _is_free_for(self, device: Device, place: Place) -> bool:
        return device in place.devices and device not in self._running

    def _in_order(self) -> list[Place]:
        """Those who wait in the order in which they would be served."""
        before: Counter[str] = Counter()
        turns = []
        for place in self._waiting:
            turn = (before[place.peer], self._served.get(place.peer, 0), place.arrival)
            before[place.peer] += 1
            turns.append((turn, place))
        return [place for _, place in sorted(turns, key=lambda pair: pair[0])]

    def _standing(self, place: Place) -> Waiting:
        order = self._in_order()
        ahead = [p for p in order[: order.index(place)] if p.devices & place.devices]
        now = time.monotonic()
        running = (p for d, p in self._running.items() if d in place.devices)
        left = sum(max(0.0, p.began + p.time_limit_s - now) for p in running)
        total = left + sum(p.time_limit_s for p in ahead)
        running_count = sum(d in place.devices for d in self._running)
        return Waiting(len(ahead) + running_count, total / len(place.devices))
