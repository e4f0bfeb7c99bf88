"""The helper's socket, before a service with canned answers, one that is frozen and none at all."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakePlanner

from memplan.slurm.config import Config
from memplan.slurm.helper import Helper
from memplan.slurm.inventory import Inventory
from memplan.slurm.protocol import line
from memplan.types import GpuTarget, Placement, PlanJobResponse, Verdict

ASK = Path(__file__).parents[3] / "deploy" / "slurm" / "memplan-ask"
JOB = "{model: torchvision/resnet50, batch_size: 64}"


@contextmanager
def helping(folder: Path, target: str, **more: Any) -> Iterator[Path]:
    """A helper of a cluster with one T4; its socket."""
    config = Config(server=target, socket=str(folder / "s"), gpus={"t4": "nvidia-t4"}, **more)
    inventory = Inventory(60, ["echo", "n1|gpu*|gpu:t4:1|(null)"])
    with Helper(config, inventory).running():
        yield Path(config.socket)
    assert not Path(config.socket).exists()


@pytest.fixture
def fitting(planner: FakePlanner) -> FakePlanner:
    """A service on whose T4 everything fits."""
    t4 = Placement(gpu=GpuTarget(gpu_type="nvidia-t4"), verdict=Verdict.FITS, reason="It is small.")
    planner.answers["PlanJob"] = lambda request: PlanJobResponse(placements=(t4,))
    return planner


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where connections are taken and nothing is ever said: a frozen service."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def ask(path: Path, verb: str, **fields: str) -> tuple[list[list[str]], float]:
    """What memplan-ask prints, in words as they are encoded, and how long it took."""
    words = line([verb, *(w for pair in fields.items() for w in pair)]).decode().split()
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-IS", str(ASK), str(path), "5", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return [row.split() for row in done.stdout.splitlines()], time.monotonic() - start


def test_a_plan_becomes_lines(tmp_path: Path, fitting: FakePlanner) -> None:
    with helping(tmp_path, fitting.target) as path:
        rows, _ = ask(path, "submit", job=JOB, partition="gpu")
    assert rows[-1] == ["end"]
    assert ["message", "nvidia-t4%3A%20It%20is%20small."] in rows
    assert ["env", "MEMPLAN_MICRO_BATCH_SIZE", "64"] in rows
    assert ["set", "gres", "gpu%3A1"] in rows


def test_it_says_who_it_is(tmp_path: Path, fitting: FakePlanner) -> None:
    (tmp_path / "token").write_text("slurm")
    token = {"token_file": str(tmp_path / "token"), "plaintext_token": True}
    with helping(tmp_path, f"{fitting.target},{fitting.target}", **token, retries=2) as path:
        rows, _ = ask(path, "submit", job=JOB)
    assert ["env", "MEMPLAN_MICRO_BATCH_SIZE", "64"] in rows
    assert fitting.tokens[0] == "Bearer slurm"


def test_a_job_file_is_read_by_who_asks(tmp_path: Path, fitting: FakePlanner) -> None:
    job = tmp_path / "a job.yaml"
    job.write_text("model: torchvision/resnet50\nbatch_size: 64\n")
    with helping(tmp_path, fitting.target) as path:
        rows, _ = ask(path, "check", file=str(job), comment="mine")
        missing, _ = ask(path, "check", file=str(tmp_path / "none"))
        not_read, _ = ask(path, "submit", job=str(job))
    [comment] = [row[1] for row in rows if row[0] == "comment"]
    assert comment.startswith("mine%20memplan%3A%7B%22model%22")
    assert missing == []
    assert "submitted%20as%20it%20is" in not_read[0][1]


@pytest.mark.parametrize("verb", ["submit", "check"])
def test_a_frozen_service_is_given_up_on(tmp_path: Path, nobody: str, verb: str) -> None:
    with helping(tmp_path, nobody) as path:
        rows, seconds = ask(path, verb, job=JOB)
    assert rows[-1] == ["end"]
    [message] = [row[1] for row in rows if row[0] == "message"]
    assert "no%20plan%20in%20time" in message
    assert seconds < 1


def test_a_service_that_is_away_is_no_reason_to_wait(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with helping(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}") as path:
            rows, seconds = ask(path, "submit", job=JOB)
    assert "no%20plan%20in%20time" in rows[0][1]
    assert seconds < 0.6


def test_a_second_helper_is_refused_and_a_dead_ones_socket_taken(
    tmp_path: Path, fitting: FakePlanner
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with (
        helping(tmp_path, fitting.target),
        pytest.raises(OSError, match="another helper"),
        helping(tmp_path, fitting.target),
    ):
        pass


def test_lines_of_strangers_end_their_connection_only(tmp_path: Path, fitting: FakePlanner) -> None:
    with helping(tmp_path, fitting.target) as path:
        for data in (b"\xff\n", b"submit job\n", b"run x y\n", b"submit JOB x\n"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(data)
                assert connection.recv(10) == b""
        rows, _ = ask(path, "submit", job=JOB)
    assert rows[-1] == ["end"]


def test_the_helper_opens_no_file_that_a_job_names(tmp_path: Path, fitting: FakePlanner) -> None:
    job = f"{{model: {{config_file: {tmp_path / 'secret'}}}, batch_size: 64}}"
    with helping(tmp_path, fitting.target) as path:
        rows, _ = ask(path, "submit", job=job)
    assert "no%20file%20can%20be%20read%20here" in rows[0][1]
