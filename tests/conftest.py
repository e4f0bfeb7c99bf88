"""Real servers on free ports of this machine, and real stubs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan_server.app import RunningServer, serve
from memplan_server.settings import Settings


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one worker that really simulates, for all tests."""
    running = serve(
        Settings(
            listen="127.0.0.1:0",
            metrics_port=0,
            data_dir=tmp_path_factory.mktemp("data"),
            workers=1,
        )
    )
    yield running
    running.stop()


@pytest.fixture(scope="session")
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    """A channel to `server`."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest.fixture(scope="session")
def planner(channel: grpc.Channel) -> MemoryPlannerStub:
    """A stub of `server`."""
    return MemoryPlannerStub(channel)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory of the test's own."""
    return tmp_path / "data"
