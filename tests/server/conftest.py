"""Databases of profiles: a SQLite file, and PostgreSQL for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgresql import PostgreSql

from memplan_server.profiles.database import Database

Opener = Callable[[], Database]

BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.integration))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL server for all tests."""
    server = PostgreSql()
    yield server
    server.stop()


@pytest.fixture(params=BOTH)
def store_url(request: pytest.FixtureRequest) -> str | None:
    """An empty PostgreSQL database; None for a SQLite file. Runs a test with each."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgresql").new_database()
    return url


@pytest.fixture
def open_database(store_url: str | None, data_dir: Path) -> Opener:
    """Opens the same database each time."""
    if store_url is None:
        return lambda: Database.of_file(data_dir)
    return lambda: Database.of_server(store_url)
