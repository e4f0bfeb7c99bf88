"""Histories recorded on an H200, replayed and simulated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from corpus.histories import FOLDER, Recording, main, recordings
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.measure.child import WITHOUT_GPU, in_child
from memplan_server.measure.comparison import compare_events
from memplan_server.measure.history import replay_history
from memplan_server.measure.simulated import Simulated

MIB = 1 << 20
RECORDED = {recording.name: recording for recording in recordings()}
EVERY_EVENT = ("mlp-fp32-adamw-b32", "gpt2-fp32-adamw-b8", "lstm-fp32-adamw-b32")
MOST_APART = 30
"""Buffers of the sort of an embedding's indices, ten or so in each step for each embedding."""
GPU = GpuCatalog.load().get("nvidia-h200")


@pytest.mark.parametrize("name", RECORDED)
def test_segments_where_the_driver_put_them_give_what_was_reserved(name: str) -> None:
    recording = RECORDED[name]
    measured = recording.measurement.peak_reserved_bytes
    assert recording.history.peak_reserved_bytes == measured
    assert replay_history(recording.history).same


@pytest.mark.parametrize("name", RECORDED)
def test_each_segment_below_the_last_gives_nearly_that(name: str) -> None:
    replayed = replay_history(replace(RECORDED[name].history, addresses=()))
    off = replayed.replayed_peak_reserved_bytes - replayed.recorded_peak_reserved_bytes
    assert abs(off) <= 2 * MIB


@pytest.mark.parametrize("name", EVERY_EVENT)
def test_every_event_is_simulated(name: str) -> None:
    recorded = RECORDED[name].events(2)
    made: Simulated = in_child(
        "memplan_server.measure.simulated:simulate",
        RECORDED[name].job,
        GPU,
        environment=WITHOUT_GPU,
    )
    found = compare_events(recorded, made.events)
    assert found.measured_allocations - found.matched_allocations <= MOST_APART
    assert sum(group.bytes_at_peak for group in found.only_measured) == 0
    assert sum(group.bytes_at_peak for group in found.only_simulated) == 0
    measured = RECORDED[name].measurement
    assert made.peak_allocated_bytes == pytest.approx(measured.peak_allocated_bytes, rel=1e-4)
    assert made.peak_reserved_bytes == measured.peak_reserved_bytes


def test_files_come_out_the_same(tmp_path: Path) -> None:
    recording = RECORDED["mlp-fp32-adamw-b32"]
    recording.write(tmp_path)
    name = "mlp-fp32-adamw-b32.json.gz"
    assert Recording.read(tmp_path / name) is not None
    assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_names_are_those_of_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mlp"]) == 2
    said = "histories.py: the matrix has no mlp; bench/corpus/matrix.py lists what it has\n"
    assert capsys.readouterr().err == said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to record on")
def test_recording_without_a_gpu_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mlp-fp32-adamw-b32", "--out", str(tmp_path)]) == 3
    assert "histories.py: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
