"""What is needed to watch a run, and what has been seen afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from memplan_server.measure.events import Events
from memplan_server.measure.history import History
from memplan_server.training import Observer

__all__ = ["Seen", "Watch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was allocated and freed; empty where nobody looked."""

    events: Events | None = None
    history: History | None = None
    """On CUDA, the same with the allocator's segments."""
    lost: str = ""
    """Why there is nothing although it was looked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """A run is executed within `mode`, with `observer` in its loop; then `seen` is called."""

    observer: Observer
    mode: contextlib.AbstractContextManager[object]
    seen: Callable[[], Seen]
