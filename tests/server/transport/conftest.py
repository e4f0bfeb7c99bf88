"""Servers whose workers run `fake_tasks` and whose profiles are made by `fake_measure`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serving import Served, Starter

from memplan_server.app import serve
from memplan_server.settings import Settings


@pytest.fixture
def start(data_dir: Path) -> Iterator[Starter]:
    """Starts servers, with any settings; they stop with the test."""
    with contextlib.ExitStack() as stack:

        def start_one(measure: str = "fake_measure:measure", **settings: Any) -> Served:
            defaults = {
                "listen": "127.0.0.1:0",
                "metrics_port": 0,
                "data_dir": data_dir,
                "workers": 1,
                "job_time_limit": 600.0,
                "worker_memory_limit": 256 << 20,
            }
            server = serve(
                Settings(**(defaults | settings)), tasks_module="fake_tasks", measure=measure
            )
            stack.callback(server.stop)
            channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
            stack.callback(channel.close)
            return Served(server, channel)

        yield start_one


@pytest.fixture
def fake(start: Starter) -> Served:
    """One such server."""
    return start()
