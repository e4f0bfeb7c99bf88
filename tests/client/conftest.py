"""Fixtures for tests of the client: a server with canned answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_server import FakePlanner, serving


@pytest.fixture
def planner() -> Iterator[FakePlanner]:
    """Canned answers behind a real server; `planner.target` is its address."""
    with serving(FakePlanner()) as planner:
        yield planner
