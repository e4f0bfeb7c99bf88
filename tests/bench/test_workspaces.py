"""Workspaces of a job's convolutions side by side, and the command that prints them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from convolutions import CONVOLUTION
from fake_cudnn import FakeCudnn, Made

from memplan import jobfile
from memplan.types import AllocatorSettings, TrainingJob
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import workspaces
from memplan_server.jobs import normalize
from memplan_server.measure.compare import NoCudaDevice
from memplan_server.measure.measurement import Gpu
from memplan_server.planning import estimate_memory
from memplan_server.timeline import Convolution, Timeline
from reporting.predictions import Traced
from workspaces import command
from workspaces.backend import Attribute, CudnnError, Kind, Library
from workspaces.command import main
from workspaces.comparison import Call, Compared, calls, compare, peak_reserved_bytes
from workspaces.heuristics import Choice, Mode
from workspaces.running import Measured, operation, workspace_bytes
from workspaces.text import describe, rows_table, shares, verdict

MIB = 1 << 20
A100 = GpuCatalog.load().get("nvidia-a100-40gb")
JOB = """
model:
  layers:
    - conv: {out_channels: 8, kernel_size: 3, padding: 1}
    - relu
    - conv: {out_channels: 8, kernel_size: 3, padding: 1}
    - conv: {out_channels: 8, kernel_size: 3, padding: 1}
    - flatten
    - linear: 4
inputs: [3x32x32]
micro_batch_size: 16
"""


@pytest.fixture(scope="module")
def job() -> TrainingJob:
    return normalize(jobfile.parse(JOB).job)


@pytest.fixture(scope="module")
def timeline(job: TrainingJob) -> Timeline:
    return Traced().get(job, A100)


def nothing(convolution: Convolution, samples: int) -> tuple[Choice, ...]:
    return ()


def test_each_different_call_of_a_step_is_there_once(timeline: Timeline) -> None:
    found = calls(timeline, 16)
    counts = {
        (call.convolution.direction, call.convolution.image[0]): count
        for call, count in found.items()
    }
    # The image of the first layer needs no gradient; the other two layers are alike.
    assert counts == {
        ("fprop", 3): 1,
        ("wgrad", 3): 1,
        ("fprop", 8): 2,
        ("dgrad", 8): 2,
        ("wgrad", 8): 2,
    }
    assert {call.samples for call in found} == {16}
    assert {call.samples for call in calls(timeline, 64)} == {64}


def test_ours_is_what_the_estimate_has(timeline: Timeline) -> None:
    rows = compare(calls(timeline, 16), A100, nothing, {})
    names = {c: f"cudnn/{i}" for i, c in enumerate(timeline.convolutions)}
    for row in rows:
        (size,) = workspaces(A100).of(names[row.call.convolution], timeline.convolutions)
        assert row.ours == 16 * size.each + size.fixed
    assert max(row.ours for row in rows) > 0
    assert [row.first for row in rows] == [None] * len(rows)


def test_rows_that_differ_most_come_first(timeline: Timeline) -> None:
    def choices(convolution: Convolution, samples: int) -> tuple[Choice, ...]:
        far = 10 * MIB if convolution.direction == "dgrad" else 0
        return Choice(Mode.INSTANT, 0, far), Choice(Mode.FALLBACK, 1, 3 * MIB)

    rows = compare(calls(timeline, 16), A100, choices, {})
    assert rows[0].call.convolution.direction == "dgrad"
    assert (rows[0].first, rows[0].least, rows[0].most) == (10 * MIB, 3 * MIB, 10 * MIB)
    differences = [abs(row.difference) for row in rows]
    assert differences == sorted(differences, reverse=True)


def test_a_measurement_is_what_ours_is_compared_with(timeline: Timeline) -> None:
    call = next(iter(calls(timeline, 16)))
    choice = Choice(Mode.INSTANT, 0, 7)
    rows = compare(calls(timeline, 16), A100, lambda *_: (choice,), {call: 50 * MIB})
    assert rows[0].call == call
    assert rows[0].difference == 50 * MIB - rows[0].ours


def test_the_replay_with_our_workspaces_is_the_estimate(
    job: TrainingJob, timeline: Timeline
) -> None:
    rows = compare(calls(timeline, 16), A100, nothing, {})
    ours = {row.call: row.ours for row in rows}
    peak = peak_reserved_bytes(timeline, 16, A100, ours, job.allocator)
    assert peak == estimate_memory(Traced(), job, A100).peak_reserved_bytes
    assert peak == peak_reserved_bytes(timeline, 16, A100, {}, job.allocator)


def test_other_workspaces_make_another_peak(timeline: Timeline) -> None:
    def peak(nbytes: int) -> int:
        sizes = dict.fromkeys(calls(timeline, 16), nbytes)
        return peak_reserved_bytes(timeline, 16, A100, sizes, AllocatorSettings())

    assert peak(512 * MIB) >= 512 * MIB + peak(0) // 2
    assert peak(0) < peak(64 * MIB) < peak(512 * MIB)


def compared(ours: int, *choices: int, measured: int | None = None) -> Compared:
    made = tuple(Choice(Mode.INSTANT, i, nbytes) for i, nbytes in enumerate(choices))
    return Compared(call=Call(CONVOLUTION, 8), count=3, ours=ours, choices=made, measured=measured)


def test_a_convolution_in_words() -> None:
    assert describe(CONVOLUTION) == "wgrad 64x56x56 * 128x64x3x3 = 128x28x28, stride 2, float32"
    other = replace(CONVOLUTION, stride=(1, 2), dilation=(3, 3), groups=4, channels_last=True)
    assert describe(other).endswith(", stride 1x2, dilation 3, 4 groups, float32, channels-last")


def test_the_table_shows_what_is_known() -> None:
    lines = rows_table([compared(MIB, 5 * MIB, 2 * MIB, 9 * MIB)]).splitlines()
    assert [c.strip() for c in lines[0].strip("|").split("|")] == [
        *("convolution", "samples", "calls", "ours", "cuDNN's first", "of ten"),
    ]
    assert [c.strip() for c in lines[2].strip("|").split("|")][1:] == ["8", "3", "1", "5", "2 to 9"]
    measured = rows_table([compared(MIB, measured=4 * MIB)]).splitlines()
    assert [c.strip() for c in measured[2].strip("|").split("|")][1:] == ["8", "3", "1", "4"]


def test_the_verdict() -> None:
    rows = [compared(MIB, MIB + 5), compared(MIB, 3 * MIB)]
    assert verdict(rows) == "ours is cuDNN's first choice, within a MiB, in 1 of 2"
    ran = [compared(MIB, 3 * MIB, measured=3 * MIB), compared(0, 2 * MIB, measured=9), *rows]
    assert verdict(ran) == "of 2 measured, within a MiB: ours 1, cuDNN's first choice 1"


def test_shares_of_operands() -> None:
    operands = 4 * (8 * (64 * 56 * 56 + 128 * 28 * 28) + 128 * 64 * 9)
    rows = [compared(0, operands), compared(0, operands // 2), compared(0, 9)]
    last = replace(CONVOLUTION, channels_last=True, direction="fprop")
    rows.append(replace(compared(0, 0), call=Call(last, 8)))
    assert shares(rows) == (
        "first choices of a MiB or more: channels-last fprop 0 of 1, "
        "wgrad 2 of 3 (0.75 of operands)"
    )


class Script:
    """Counters of an allocator."""

    def __init__(self, peak: int, left: int) -> None:
        self._peak, self._left, self.resets = peak, left, 0

    def memory_allocated(self) -> int:
        return self._left

    def max_memory_allocated(self) -> int:
        return self._peak

    def reset_peak_memory_stats(self) -> None:
        self.resets += 1


SMALL = replace(CONVOLUTION, image=(4, 9, 9), kernel=(6, 2, 3, 3), result=(6, 5, 5), groups=2)
LINE = replace(
    CONVOLUTION, image=(4, 20), kernel=(6, 4, 5), result=(6, 20), stride=(1,), dilation=(1,)
)
VOLUME = replace(
    CONVOLUTION,
    image=(2, 4, 6, 6),
    kernel=(3, 2, 1, 3, 3),
    result=(3, 4, 3, 3),
    stride=(1, 2, 2),
    dilation=(1, 1, 1),
    channels_last=True,
)


@pytest.mark.parametrize("convolution", [SMALL, LINE, VOLUME], ids=["groups", "1d", "3d"])
@pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad"])
def test_what_is_run_is_the_convolution(convolution: Convolution, direction: str) -> None:
    asked = replace(convolution, direction=direction)
    result = operation(asked, 2, torch.device("cpu"))()
    shapes = {
        "fprop": (2, *asked.result),
        "dgrad": (2, *asked.image),
        "wgrad": asked.kernel,
    }
    assert tuple(result.shape) == shapes[direction]
    if asked.channels_last and direction == "fprop":
        assert result.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_workspace_is_what_was_taken_beside_the_result() -> None:
    counters = Script(peak=9000, left=2000)
    assert workspace_bytes(SMALL, 2, torch.device("cpu"), counters) == 7000
    assert counters.resets == 1


def test_without_room_nothing_is_measured() -> None:
    class Full(Script):
        def reset_peak_memory_stats(self) -> None:
            raise torch.OutOfMemoryError

    assert workspace_bytes(SMALL, 2, torch.device("cpu"), Full(0, 0)) is None


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCudnn:
    def proposals(asked: Made) -> list[tuple[int, int]]:
        return [(1, 96 * MIB), (2, 512 * MIB)]

    made = FakeCudnn(proposals)
    monkeypatch.setattr(Library, "load", lambda folder=None: made.library())
    return made


def test_the_command(
    fake: FakeCudnn, job_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "lines.jsonl"
    arguments = [job_file, "--gpu", "nvidia-a100-40gb", "--batch-sizes", "4,16"]
    assert main([*arguments, "--rows", "2", "--json", str(into), "--sensitivity"]) == 0
    text = capsys.readouterr().out
    assert "batch 4, fp32, nvidia-a100-40gb, cuDNN 9.19.0: 5 different convolutions, MiB" in text
    assert text.count("|       16 |") == 0
    assert text.count("96 to 512") == 2 * 2
    assert "ours is cuDNN's first choice, within a MiB, in 0 of 5" in text
    assert "| smClockRateKHz" in text
    first, second = (json.loads(line) for line in into.read_text().splitlines())
    assert second["job"]["micro_batch_size"] == 16
    peaks = first["peak_reserved_bytes"]
    assert peaks["ours"] < peaks["first"] < peaks["largest of ten"]
    assert "measured" not in peaks
    row = first["convolutions"][0]
    assert (row["samples"], row["measured_bytes"]) == (4, None)
    assert row["choices"][0] == {"mode": "instant", "engine": 1, "bytes": 96 * MIB}


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, description: object) -> None:
    """Answers of processes that would run on one."""

    def run(function: str, *arguments: Any) -> object:
        if function == "workspaces.running:describe":
            if isinstance(description, Exception):
                raise description
            return description
        if function == "memplan_server.measure.cuda:describe":
            return Gpu(name="NVIDIA H100 80GB HBM3")
        assert function == "workspaces.running:measure"
        job, wanted = arguments
        assert job.micro_batch_size == 16
        return Measured(cudnn="9.13.1", workspaces=[96 * MIB] * len(wanted))

    monkeypatch.setattr(command, "in_child", run)
    monkeypatch.setattr(command, "check_cuda", lambda: None)


def test_the_command_measures(
    fake: FakeCudnn,
    job_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_a_gpu(monkeypatch, {"deviceVer": 900, "deviceName": "there"})
    into = tmp_path / "lines.jsonl"
    assert main([job_file, "--measure", "--json", str(into)]) == 0
    text = capsys.readouterr().out
    assert "nvidia-h100-80gb, cuDNN 9.19.0, measured with cuDNN 9.13.1" in text
    assert "of 5 measured, within a MiB: ours 0, cuDNN's first choice 5" in text
    line = json.loads(into.read_text())
    assert line["gpu_as_told"] == {"deviceVer": 900, "deviceName": "there"}
    assert line["convolutions"][0]["measured_bytes"] == 96 * MIB
    assert line["peak_reserved_bytes"]["measured"] == line["peak_reserved_bytes"]["first"]


def test_a_gpu_that_cudnn_does_not_describe_is_the_catalogs(
    fake: FakeCudnn,
    job_file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_a_gpu(monkeypatch, CudnnError("no device"))
    assert main([job_file, "--measure"]) == 0
    assert capsys.readouterr().err == "The GPU is described from the catalog: no device\n"
    told = [b"".join(made.values[Attribute.DEVICE_JSON]) for made in fake.of(Kind.DEVICE)]
    assert json.loads(told[0])["deviceName"] == "nvidia-h100-80gb"


def test_without_cudnn_it_only_measures(
    job_file: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_a_gpu(monkeypatch, CudnnError("no library"))
    assert main([job_file, "--measure", "--cudnn", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "Only measured: There is no libcudnn.so.9" in said.err
    assert "cuDNN not asked, measured with cuDNN 9.13.1" in said.out
    assert "of 5 measured, within a MiB: ours 0, cuDNN's first choice 0" in said.out


def test_without_cudnn_the_command_says_what_to_do(
    job_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [job_file, "--gpu", "nvidia-a100-40gb", "--cudnn", str(tmp_path)]
    assert main(arguments) == 1
    assert "pip install --target FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Which GPU?"),
        (["--gpu", "nvidia-a1000"], "nvidia-a1000"),
        (["--gpu", "nvidia-t4", "--batch-sizes", "8,x"], "is not like 8,32,128"),
        (["--gpu", "nvidia-t4", "--batch-sizes", "0"], "is not like 8,32,128"),
    ],
)
def test_wrong_requests(
    arguments: list[str], said: str, job_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([job_file, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_there_is_nothing_to_measure_on_without_a_gpu(
    fake: FakeCudnn,
    job_file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def check() -> None:
        raise NoCudaDevice("PyTorch finds no CUDA GPU.")

    monkeypatch.setattr(command, "check_cuda", check)
    assert main([job_file, "--measure"]) == 1
    assert capsys.readouterr().err == "cudnn_workspaces.py: PyTorch finds no CUDA GPU.\n"
    assert not fake.of(Kind.HEURISTICS)
