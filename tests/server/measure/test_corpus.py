"""The corpus: its matrix, its lines, and a dry run of the script on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from memplan.types import EstimateMemoryRequest, GpuType
from memplan_server.measure.driver import Driver
from memplan_server.measure.measurement import Gpu, Measurement
from memplan_server.validation import check

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / "bench" / "corpus" / "measure.py"
sys.path.insert(0, str(REPOSITORY / "bench"))

from corpus import measure  # noqa: E402
from corpus.lines import Line, read_lines  # noqa: E402
from corpus.matrix import FAMILIES, matrix  # noqa: E402


def dry_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(folder), "--device", "cpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=200, env=environment
    )


@pytest.fixture
def dry_device() -> measure.Device:
    return measure.Device(
        type="cpu", gpu=Gpu(name="cpu"), gpu_type=GpuType(name="none"), catalog_name=None
    )


def test_every_job_is_valid_and_has_a_name_of_its_own() -> None:
    entries = matrix()
    assert len({entry.name for entry in entries}) == len(entries) > 100
    for entry in entries:
        assert entry.family in FAMILIES
        size = max(1, entry.job.micro_batch_size)
        check(EstimateMemoryRequest(job=replace(entry.job, micro_batch_size=size)))


def test_the_beginning_has_every_family() -> None:
    assert {entry.family for entry in matrix()[:20]} == set(FAMILIES)


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    entry = matrix()[0]
    measurement = Measurement(
        device_type="cuda", gpu=Gpu(name="NVIDIA L4"), library_versions={}, peak_allocated_bytes=7
    )
    good = Line(
        name=entry.name,
        family=entry.family,
        job=entry.job,
        gpu_type="nvidia-l4",
        measured=measurement,
    )
    bad = replace(good, name="bad", measured=None, error="no convolution for this")
    text = f"{good.to_json()}\n{bad.to_json()}\n"
    (tmp_path / "nvidia-l4.jsonl").write_text(text + good.to_json()[:100])
    assert list(read_lines(tmp_path)) == [good, bad]


def test_a_dry_run_measures_each_job_once(tmp_path: Path) -> None:
    only = "^(lstm-fp32-adamw-near|mlp-amp-fp16)"
    first = dry_run(tmp_path, "--only", only)
    assert "2 jobs to measure" in first.stdout
    lines = {line.name: line for line in read_lines(tmp_path)}
    assert set(lines) == {"lstm-fp32-adamw-near", "mlp-amp-fp16-adamw-b32"}
    for line in lines.values():
        assert line.error == ""
        assert line.gpu_type is None
        assert line.job.micro_batch_size == measure.DRY_BATCH_SIZE
        assert line.measured is not None
        assert line.measured.peak_allocated_bytes > 1 << 20
        assert line.measured.optimizer_steps == 1
    assert "0 jobs to measure, 2 are done" in dry_run(tmp_path, "--only", only).stdout


@pytest.mark.integration
def test_a_dry_run_of_all_that_needs_a_gpu(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    script = [str(SCRIPT.with_name("device.sh")), str(tmp_path), "250", "cpu"]
    subprocess.run(script, check=True, timeout=280, env=environment)
    assert " skipped in " in (tmp_path / "tests.txt").read_text()
    (compared,) = (tmp_path / "compare.jsonl").read_text().splitlines()
    assert json.loads(compared)["events"]["matched_allocations"] > 50
    (line,) = read_lines(tmp_path / "corpus")
    assert line.error == ""


def test_no_time_no_lines(tmp_path: Path) -> None:
    dry_run(tmp_path, "--time-limit", "0")
    assert list(read_lines(tmp_path)) == []


def test_what_is_under_way_when_the_time_is_up_is_given_up(dry_device: measure.Device) -> None:
    start = time.monotonic()
    assert list(measure._measure(matrix()[:3], dry_device, 1, start + 0.3)) == []
    assert time.monotonic() - start < 2  # importing torch alone takes longer


def test_one_job_that_fails_does_not_end_the_run(
    dry_device: measure.Device,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    entry = next(e for e in matrix() if e.name == "mlp-fp32-adamw-b32")
    broken = replace(
        entry,
        name="broken",
        job=replace(entry.job, inputs=(replace(entry.job.inputs[0], shape=()),)),
    )
    lines = list(measure._measure([broken, entry], dry_device, 1, float("inf")))
    assert [line.name for line in lines] == ["broken", entry.name]
    assert lines[0].measured is None
    assert "dimension" in lines[0].error
    assert lines[1].measured is not None
    assert "measure.py: broken: " in capfd.readouterr().err


def test_a_failure_that_is_not_ours_does_not_end_the_run(
    dry_device: measure.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(measure, "Child", full)
    (line,) = measure._measure(matrix()[:1], dry_device, 1, float("inf"))
    assert (line.measured, line.error) == (None, "no more processes")


def test_a_job_waits_for_the_memory_of_the_one_before(dry_device: measure.Device) -> None:
    used = [5 << 30, 3 << 30, 1 << 30, 0]
    driver = cast(
        Driver, SimpleNamespace(usage=lambda: SimpleNamespace(driver_used_bytes=used.pop(0)))
    )
    replace(dry_device, driver=driver, used_bytes=1 << 30).await_memory()
    assert used == [0]
