"""A least-recently-used cache bounded by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["LruCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Keeps the values used last, up to `capacity_bytes` by `weigh`. Safe to use from threads."""

    def __init__(self, capacity_bytes: int, weigh: Callable[[K, V], int]) -> None:
        self.capacity_bytes = capacity_bytes
        self._weigh = weigh
        self._values: OrderedDict[K, V] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of everything kept."""
        return self._held_bytes

    def get(self, key: K) -> V | None:
        """The value kept for `key`, which is then the one used last; None when there is none."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keep `value`; what was used longest ago leaves. One larger than all is not kept."""
        weight = self._weigh(key, value)
        with self._lock:
            if key in self._values:
                self._held_bytes -= self._weigh(key, self._values.pop(key))
            if weight > self.capacity_bytes:
                return
            self._values[key] = value
            self._held_bytes += weight
            while self._held_bytes > self.capacity_bytes:
                self._held_bytes -= self._weigh(*self._values.popitem(last=False))
