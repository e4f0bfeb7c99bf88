"""What children do in tests."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable


def prepare_and_wait(name: str, wait: Callable[[], None]) -> str:
    wait()
    return f"{name} went on"


def fail_early(wait: Callable[[], None]) -> None:
    raise RuntimeError("too early")


def count_to(number: int, report: Callable[[int], None]) -> str:
    for step in range(number):
        report(step)
    return "done"


def variable(name: str) -> str | None:
    return os.environ.get(name)


def allocate(size: int) -> int:
    return len(bytearray(size))


def start_another_and_sleep(report: Callable[[int], None]) -> None:
    report(subprocess.Popen(["sleep", "600"]).pid)
    time.sleep(600)
