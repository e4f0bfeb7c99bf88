"""The benchmarks' modules can be imported, as where they are started from; the simulated device is
registered before any test of this folder trains on the CPU, after which PyTorch takes none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from memplan_server.simulate import worker

sys.path.append(str(Path(__file__).parents[2] / "bench"))


@pytest.fixture(scope="session", autouse=True)
def simulated_device() -> None:
    worker.initialize()
