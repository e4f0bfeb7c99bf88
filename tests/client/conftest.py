"""Fixtures for tests of the client: a server with canned answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_server import FakePlanner, serving

MEMPLAN = Path(sys.executable).with_name("memplan")
INTERRUPTIBLE = (
    # A shell's background job ignores the signal, and its children would too.
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def planner() -> Iterator[FakePlanner]:
    """Canned answers behind a real server; `planner.target` is its address."""
    with serving(FakePlanner()) as planner:
        yield planner


@pytest.fixture
def start(planner: FakePlanner) -> Callable[..., subprocess.Popen[str]]:
    """Starts the command in a process of its own, which can be interrupted."""

    def start(line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, str(MEMPLAN), *line.split()],
            env={**os.environ, "MEMPLAN_SERVER": planner.target},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
