"""Running the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result
from fake_server import FakePlanner

Run = Callable[..., Result]
"""The fixture `run`."""

MEMPLAN = Path(sys.executable).with_name("memplan")


def process(line: str, planner: FakePlanner, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, against the fake server."""
    environment = {**os.environ, "MEMPLAN_SERVER": planner.target, **kwargs.pop("env", {})}
    return subprocess.run(
        [MEMPLAN, *line.split()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **kwargs,
    )
