"""Fixtures for tests of the client: a server with canned answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from commands import MEMPLAN, Run
from fake_server import FakePlanner, serving

from memplan.cli.commands import cli

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
def run(planner: FakePlanner, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line against the fake server."""
    monkeypatch.setenv("MEMPLAN_SERVER", planner.target)
    monkeypatch.setenv("COLUMNS", "100")

    def run(line: str, **kwargs: Any) -> Result:
        return CliRunner().invoke(cli, line.split(), **kwargs)

    return run


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
