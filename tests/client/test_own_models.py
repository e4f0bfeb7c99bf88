"""Models of the user's own: from Python and from a file, against a server with canned answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from fake_server import FakePlanner
from torch import nn

import memplan
from memplan.cli.commands import cli
from memplan.wire import to_proto

CODE = """
from torch import nn

SECRET = 'a line of code'

def make_model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())

def reads_values():
    width = nn.Linear(2, 2).weight.numel() + int(__import__('torch').ones(1).item())
    return nn.Linear(8, width)

class Conditional(nn.Linear):
    def forward(self, x):
        return super().forward(x) if (x > 0).all() else super().forward(-x)

def conditional():
    return Conditional(8, 2)

def fails():
    raise KeyError('vocabulary')

def wrong_shape():
    return nn.Sequential(nn.Linear(7, 2))

NOTHING = None
"""


@pytest.fixture
def run(planner: FakePlanner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("MEMPLAN_SERVER", planner.target)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(CODE)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["plan", *arguments, "--batch-size", "4"])

    return run


def test_plan_module_sends_the_graph_and_the_optimizer(planner: FakePlanner) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    with memplan.Client(planner.target) as client:
        plan = client.plan_module(
            model,
            torch.empty(4, 8),
            optimizer,
            ["nvidia-t4"],
            loss=nn.CrossEntropyLoss(),
            targets=torch.zeros(4, dtype=torch.int64),
        )
    (request,) = planner.requests
    assert plan.placements
    assert request.job.optimizer.groups[0].amsgrad
    assert list(request.job.model.graph.operators) == [
        "aten.linear.default",
        "aten.cross_entropy_loss.default",
    ]
    assert [t.is_target for t in request.job.model.graph.inputs] == [False, True]
    assert request.job.micro_batch_size == 4


def test_a_function_of_a_file(run: Any, planner: FakePlanner) -> None:
    result = run("train.py:make_model", "--input", "3x8x8")
    assert result.exit_code == 0, result.output
    (request,) = planner.requests
    assert not request.job.inputs
    assert request.job.model.graph.modules[1].type == "Conv2d"
    assert b"a line of code" not in to_proto(request).SerializeToString()


@pytest.mark.parametrize("option", ["", "--conditions-are-false"])
def test_conditions_are_what_the_option_says(run: Any, planner: FakePlanner, option: str) -> None:
    result = run("train.py:conditional", "--input", "8", *filter(None, [option]))
    assert result.exit_code == 0, result.output
    (request,) = planner.requests
    assert request.job.assumptions.conditions_are_false == bool(option)
    assert ("aten.neg.default" in request.job.model.graph.operators) == bool(option)


def test_a_function_that_reads_values(run: Any, planner: FakePlanner) -> None:
    assert run("train.py:reads_values", "--input", "8").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.py:make_model"], "needs --input"),
        (["train.py:nobody", "--input", "8"], "has no function nobody"),
        (["train.py:NOTHING", "--input", "8"], "has no function NOTHING"),
        (["other.py:make_model", "--input", "8"], "There is no file other.py"),
        (["train.py:fails", "--input", "8"], "train.py:fails() fails: KeyError"),
        (["train.py:wrong_shape", "--input", "8"], "cannot be captured"),
    ],
)
def test_mistakes_are_requests_that_are_wrong(
    run: Any, planner: FakePlanner, arguments: list[str], said: str
) -> None:
    result = run(*arguments)
    assert said in result.output
    assert result.exit_code == 2
    assert not planner.requests
