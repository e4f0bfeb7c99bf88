"""Rules for convolutions beside what was measured."""

from __future__ import annotations

import pytest

import convolution_scores
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import workspaces
from workspaces.comparison import ours_bytes
from workspaces.records import Record, records


@pytest.fixture(scope="module")
def measured() -> list[Record]:
    return records()


def test_every_line_is_a_call_of_its_own(measured: list[Record]) -> None:
    assert len({record.call for record in measured}) == len(measured) == 23_897
    assert all(record.taken_bytes >= 0 for record in measured)
    assert {record.call.samples for record in measured} == {1, 8, 32, 48, 128}


def test_the_rules_are_near_what_was_measured(measured: list[Record]) -> None:
    model = workspaces(GpuCatalog.load().get("nvidia-h200"))
    scored = [convolution_scores.Scored(r, ours_bytes(r.call, model)) for r in measured]
    needed = sum(s.needed for s in scored)
    assert sum(abs(s.difference) for s in scored) < 0.03 * needed
    assert sum(max(0, -s.difference) for s in scored) < 0.02 * needed
    assert sum(s.right for s in scored) > 0.75 * len(scored)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--by", "kind,layout", "--worst", "2", "--half", "odd"]
    assert convolution_scores.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        *("kind", "layout", "calls", "taken GiB", "error", "too little", "right"),
    ]
    assert len([line for line in lines if line.startswith("| depthwise")]) == 2
    assert lines[-1].endswith(" MiB")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--gpu", "nvidia-h201"], "Did you mean nvidia-h200"),
        (["--by", "kind,colour"], "'colour' is none of all, dtype, layout"),
        (["--cudnn", "/nowhere"], "pip install --target"),
    ],
)
def test_wrong_input_is_answered_with_a_sentence(
    arguments: list[str], remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = convolution_scores.main(arguments)
    except SystemExit as left:  # argparse's way
        status = left.code
    assert status == 2
    assert remedy in capsys.readouterr().err
