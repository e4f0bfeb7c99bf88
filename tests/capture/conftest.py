"""What tests of capturing have in common. They run the simulated GPU in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from memplan_server.simulate import device

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def _registered() -> None:
    device.register()
