"""`memplan-server compare`, as one runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memplan import jobfile
from memplan.types import TrainingJob
from memplan_server.errors import TimeLimitExceeded, WorkerFailure
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure import command
from memplan_server.measure.child import Child, in_child
from memplan_server.measure.command import main
from memplan_server.measure.compare import Comparison, compare, gpu_type_of
from memplan_server.measure.comparison import names_from
from memplan_server.measure.events import Events, Section
from memplan_server.measure.measurement import Gpu, Measurement, OutOfMemory, StepSeconds
from memplan_server.timeline import Phase

JOB = """
model:
  layers: [flatten, linear: 32, relu, linear: 10]
inputs: 1x8x8
batch_size: 4
optimizer: adam
"""

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


@pytest.fixture(scope="module")
def on_the_cpu() -> Comparison:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        job = normalize(jobfile.parse(JOB).job)
        catalog = GpuCatalog.load()
        return compare(job, catalog, device_type="cpu", gpu_type="nvidia-a100-80gb")


@pytest.fixture
def asked(on_the_cpu: Comparison, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command asks for; the answer is there already."""
    calls: list[dict[str, Any]] = []

    def answer(job: TrainingJob, catalog: GpuCatalog, **fields: Any) -> Comparison:
        calls.append({"job": job, **fields})
        return on_the_cpu

    monkeypatch.setattr(command, "compare", answer)
    return calls


def test_a_job_file_compared_on_the_cpu(
    job_file: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([job_file, "--device", "cpu", "--json"]) == 0
    assert asked == [
        {
            "job": normalize(jobfile.parse(JOB).job),
            "device_type": "cpu",
            "gpu_type": "nvidia-a100-80gb",
        }
    ]
    found = json.loads(capsys.readouterr().out)
    assert found["gpu_type"] == "nvidia-a100-80gb"
    workspaces = found["events"]["only_simulated"]
    assert {group["operator"] for group in workspaces} == {"addmm workspace", "mm workspace"}
    apart = found["simulated"]["peak_allocated_bytes"] - found["measured"]["peak_allocated_bytes"]
    # Adam's step counts lie in host memory: four of them, a block of 512 bytes each.
    at_peak = sum(group["bytes_at_peak"] for group in workspaces) - 4 * 512
    assert 0 <= apart - at_peak < 1 << 20
    assert found["replayed"] is None


def test_the_report_names_both_sides(
    job_file: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-f", job_file, "--device", "cpu", "--gpu", "nvidia-t4"]) == 0
    assert asked[0]["gpu_type"] == "nvidia-t4"
    text = capsys.readouterr().out
    assert "simulated for nvidia-a100-80gb" in text
    assert "Only simulated" in text
    assert "addmm workspace" in text


@without_cuda
def test_without_a_gpu_it_says_so(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([job_file]) == 3
    assert "CUDA" in capsys.readouterr().err


def test_it_needs_no_grpc() -> None:
    script = (
        "import runpy, sys; sys.modules.update(grpc=None, rich=None); "
        "sys.argv = ['memplan-server', 'compare', '--help']; "
        "runpy.run_module('memplan_server', run_name='__main__')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "--device" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["torchvision/resnet18", "--device", "cpu"], "micro_batch_size"),
        (["--device", "cpu"], "No model"),
        (["nowhere.yaml", "--device", "cpu"], "cannot be read"),
        (["torchvision/resnet18", "--batch-size", "2", "--device", "tpu"], "tpu"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_gpu_that_the_catalog_does_not_know_is_simulated_as_it_says() -> None:
    gpu = Gpu(name="NVIDIA Unheard Of", usable_bytes=1 << 34, compute_capability="9.0")
    assert gpu_type_of(gpu, GpuCatalog.load()).compute_capability == "9.0"
    known = replace(gpu, name="NVIDIA A100-SXM4-40GB")
    assert gpu_type_of(known, GpuCatalog.load()).name == "nvidia-a100-40gb"


def test_names_of_a_run_that_was_not_quite_the_same() -> None:
    section = [Section(0, Phase.FORWARD, 0)]
    plain = Events(events=[0, 1, 2], sizes=[512, 1024, 2048], sections=section)
    named = Events(
        events=[0, 1, 2],
        sizes=[512, 4096, 2048],
        operators=["mm", "add", "relu"],
        sections=section,
    )
    events, changed = names_from(plain, named)
    assert events.operators == ["mm", "unknown", "relu"]
    assert changed == 2


def test_measurements_survive_json() -> None:
    measurement = Measurement(
        device_type="cuda",
        gpu=Gpu(name="NVIDIA L4"),
        library_versions={"torch": "2.11.0"},
        peak_allocated_bytes=5,
        out_of_memory=OutOfMemory(requested_bytes=None, phase="forward", step=1),
        step_seconds=StepSeconds(median=0.1, p10=0.1, p90=0.2),
        notes=("a note",),
    )
    text = json.dumps(measurement.to_dict())
    assert Measurement.from_dict(json.loads(text)) == measurement


def test_children() -> None:
    assert in_child("os.path:basename", "/a/b") == "b"
    with pytest.raises(WorkerFailure, match="exit code 3"):
        in_child("os:_exit", 3)
    with pytest.raises(WorkerFailure, match="TypeError"):
        in_child("os.path:basename", 3)
    with pytest.raises(TimeLimitExceeded, match=r"0\.1 s"):
        in_child("time:sleep", 60, timeout_s=0.1)


def test_a_gated_child_waits_for_its_turn() -> None:
    with Child("children:prepare_and_wait", "a", gated=True).ended() as child:
        child.ready(30)
        child.go()
        assert child.result(30) == "a went on"
    with Child("children:fail_early", gated=True).ended() as child:
        child.ready(30)
        child.go()
        with pytest.raises(WorkerFailure, match="too early"):
            child.result(30)
