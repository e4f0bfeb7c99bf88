"""What children do in tests."""

from __future__ import annotations

from collections.abc import Callable


def prepare_and_wait(name: str, wait: Callable[[], None]) -> str:
    wait()
    return f"{name} went on"


def fail_early(wait: Callable[[], None]) -> None:
    raise RuntimeError("too early")
