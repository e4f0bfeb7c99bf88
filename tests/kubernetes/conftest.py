"""The webhook before a planner that really plans."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane import ControlPlane, control_plane
from record_reviews import custom_resources
from reviewing import Pair, Webhook, load, serving, until_planned

from memplan_server.app import RunningServer


def make_pair(folder: Path) -> Pair:
    """A certificate in a folder."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    pair = Pair(cert=folder / "tls.crt", key=folder / "tls.key")
    pair.make()
    return pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A certificate for all tests."""
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def own_pair(tmp_path: Path) -> Pair:
    """A certificate of the test's own."""
    return make_pair(tmp_path)


@pytest.fixture(scope="session")
def webhook(pair: Pair, server: RunningServer) -> Iterator[Webhook]:
    """A webhook; its planner has its first worker running and is quick from now on."""
    with serving(pair, f"127.0.0.1:{server.port}", "--patience", "25") as webhook:
        until_planned(webhook, load("pod"))
        yield webhook


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server with the kinds of Kubeflow; skips the test where none is built."""
    with control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        custom_resources(plane, "trainjobs")
        yield plane
