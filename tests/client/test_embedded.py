"""The whole way: the command, the server it starts or is told, the simulation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from memplan import Client, jobfile
from memplan_server.app import RunningServer

MEMPLAN = Path(sys.executable).with_name("memplan")

RESNET = """
model: torchvision/resnet18
inputs: [3x64x64]
optimizer: adam
batch_size: 64
gpus: [nvidia-t4, "nvidia-t4:150MiB"]
global_batch_size: 1000
"""
PARAMETERS = 11_689_512  # torchvision's documentation


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cache directory."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job file."""
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(RESNET)
    return path


def start(cache: Path, *words: object, **kwargs: Any) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MEMPLAN")}
    environment |= {"XDG_CACHE_HOME": str(cache), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.Popen(
        [MEMPLAN, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def finish(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=120)
    return child.returncode, out, err


def test_with_no_server_named(cache: Path, job: Path) -> None:
    code, out, err = finish(start(cache, "plan", "-f", job, "--format", "json"))
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert [p["verdict"] for p in data["placements"]] == ["FITS", "DOES_NOT_FIT"]
    estimate = data["estimate"]
    assert estimate["model_state"]["parameter_count"] == PARAMETERS
    assert sum(estimate["breakdown"].values()) == estimate["device_used_bytes"]
    plan = data["accumulation"]
    samples = (plan["accumulation_steps"] - 1) * plan["micro_batch_size"]
    assert samples + plan["last_micro_batch_size"] == 1000
    assert (cache / "memplan" / "embedded.log").exists()


def test_the_second_time_is_quick(cache: Path, job: Path) -> None:
    finish(start(cache, "estimate", "-f", job, "--gpu", "nvidia-t4"))
    started = time.monotonic()
    code, out, _ = finish(start(cache, "estimate", "-f", job, "--gpu", "nvidia-l4"))
    assert code == 0
    assert "Memory on nvidia-l4, batch 64" in out
    assert time.monotonic() - started < 10  # a worker alone takes some seconds to start


def test_nothing_fits(cache: Path, job: Path) -> None:
    code, out, _ = finish(start(cache, "plan", "-f", job, "--gpu", "nvidia-t4:150MiB"))
    assert code == 3
    assert "does not fit" in out


def test_wrong_jobs(cache: Path, job: Path) -> None:
    code, out, err = finish(start(cache, "plan", "-f", job, "--momentum", "0.5"))
    assert (code, out) == (2, "")
    assert "--momentum: " in err


def test_catalog(cache: Path) -> None:
    code, out, err = finish(start(cache, "gpus", "T4"))
    assert (code, err) == (0, "")
    assert "nvidia-t4" in out


def test_terminated_while_simulating(tmp_path: Path, job: Path) -> None:
    child = start(tmp_path, "plan", "-f", job, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(processes(child.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    code, out, err = finish(child)
    assert (code, out) == (128 + signal.SIGTERM, "")
    assert "Traceback" not in err
    deadline = time.monotonic() + 15
    while processes(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(child.pid) == []


def processes(session: int) -> list[str]:
    """Ids of the living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(path.parent.name)
    return found


def test_the_client_and_the_command_get_the_same(server: RunningServer, job: Path) -> None:
    request = jobfile.load(job)
    target = f"127.0.0.1:{server.port}"
    with Client(target) as client:
        plan = client.plan_job(request.job, request.gpus, global_batch_size=1000)
        assert [gpu.name for gpu in client.list_gpu_types("a100", page_size=3)]
    environment = {**os.environ, "MEMPLAN_SERVER": target}
    command = [MEMPLAN, "plan", "-f", str(job), "--format", "json"]
    out = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    data = json.loads(out)
    assert data["estimate"]["device_used_bytes"] == plan.estimate.device_used_bytes
    assert data["accumulation"]["micro_batch_size"] == plan.accumulation.micro_batch_size  # type: ignore[union-attr]


def test_a_plan_is_measured_on_the_cpu_where_there_is_no_gpu(cache: Path) -> None:
    words = ("plan", "torchvision/resnet18", "--input", "3x64x64", "--batch-size", "4")
    where = ("--gpu", "nvidia-t4", "--measure", "90")
    status, out, err = finish(start(cache, *words, *where, "--format", "json"))
    assert (status, err) == (0, "")
    data = json.loads(out)
    profile, (placement,) = data["profile"], data["placements"]
    assert (profile["device_type"], placement["verdict"]) == ("cpu", "FITS")
    assert "Measured" not in placement["reason"]
    estimate = data["estimate"]
    tensors = estimate["peak_allocated_bytes"] - estimate["breakdown"]["workspace_bytes"]
    assert profile["peak_allocated_bytes"] == pytest.approx(tensors, rel=0.05)
    notes = data["measurement_notes"]
    assert "3 steps after 2 to warm up; " in notes[0]
    assert f"torch {profile['library_versions']['torch']}" in notes[0]
    assert any("ran on a CPU" in note for note in notes)
    assert any(f"{profile['peak_allocated_bytes']:,} bytes" in note for note in notes)
    # a CPU's profile is no reason not to measure again, and the time may be too short
    status, out, err = finish(start(cache, *words, *where[:3], "0.5"))
    assert (status, err) == (0, "")
    assert "Micro-batch 4 was not measured: " in out


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, err = finish(start(tmp_path / "file", "gpus", "t4"))
    assert (code, err) == (0, "")
    assert "nvidia-t4" in out
