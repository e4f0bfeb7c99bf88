"""The simulated device is registered once for all tests of this folder."""

from __future__ import annotations

import pytest

from memplan_server.simulate import worker


@pytest.fixture(scope="session", autouse=True)
def simulated_device() -> None:
    worker.initialize()
