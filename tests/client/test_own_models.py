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
import memplan
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

def make_job():
    import torch
    print('building')
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    return {
        'module': model,
        'inputs': torch.empty(16, 8),
        'optimizer': torch.optim.AdamW(model.parameters(), amsgrad=True),
        'loss': nn.functional.cross_entropy,
        'targets': torch.zeros(16, dtype=torch.int64),
    }

def misspelt():
    return {'module': nn.Linear(8, 2), 'input': None}

def without_a_module():
    return {'inputs': None}

def class_for_a_module():
    return {'module': nn.Linear}

def half():
    return {'module': nn.Linear(8, 2), 'precision': memplan.Precision.BF16}
"""


@pytest.fixture
def run(planner: FakePlanner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("MEMPLAN_SERVER", planner.target)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(CODE)

    def run(*arguments: str) -> Result:
        size = [] if "--batch-size" in arguments else ["--batch-size", "4"]
        return CliRunner().invoke(cli, ["plan", *arguments, *size])

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


def test_a_function_that_gives_what_belongs_to_the_module(run: Any, planner: FakePlanner) -> None:
    result = run("train.py:make_job", "--format", "json")
    assert result.exit_code == 0, result.output
    assert "building" not in result.stdout
    (request,) = planner.requests
    graph = request.job.model.graph
    assert [t.is_target for t in graph.inputs] == [False, True]
    assert graph.loss is not None
    assert request.job.optimizer.groups[0].amsgrad
    assert [t.optimizer_group for t in graph.tensors] == [1, 1, 1, 1]
    assert request.job.micro_batch_size == 4  # the option's, not the 16 of the example


def test_options_come_before_what_the_function_gives(run: Any, planner: FakePlanner) -> None:
    options = ["--input", "3x8", "--optimizer", "adam", "--loss", "mse", "--precision", "amp-bf16"]
    result = run("train.py:make_job", *options)
    assert result.exit_code == 0, result.output
    (request,) = planner.requests
    graph = request.job.model.graph
    assert graph.loss is None
    assert request.job.loss is memplan.Loss.MSE
    assert [size.fixed for size in graph.inputs[0].shape] == [0, 3, 8]
    assert request.job.optimizer == memplan.Optimizer(type=memplan.OptimizerType.ADAM)
    assert request.job.precision is memplan.Precision.AMP_BF16


def test_the_example_says_the_batch_size(run: Any, planner: FakePlanner, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("precision: fp32\n")
    arguments = ["plan", "train.py:make_job", "-f", "job.yaml"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert planner.requests[0].job.micro_batch_size == 16


@pytest.mark.parametrize(
    "arguments", [["train.py:half"], ["train.py:make_model", "--precision", "bf16"]]
)
def test_half_precision_is_that_of_module_and_inputs(
    run: Any, planner: FakePlanner, arguments: list[str]
) -> None:
    shape = "8" if "half" in arguments[0] else "3x8x8"
    result = run(*arguments, "--input", shape)
    assert result.exit_code == 0, result.output
    (request,) = planner.requests
    assert request.job.precision is memplan.Precision.BF16
    graph = request.job.model.graph
    assert {t.dtype for t in (*graph.tensors, *graph.inputs)} == {memplan.DataType.BFLOAT16}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import argparse\nargparse.ArgumentParser().parse_args(['--odd'])", "train.py:2, `argpa"),
        ("def f(:", "line 1"),
        ("x = 1\nx.y", "train.py:2, `x.y`: train.py cannot be executed: AttributeError"),
        ("def f():\n    n = 0\n    return 1 / n", "train.py:3, `return 1 / n`: train.py:f() fails"),
        ("from torch import nn\ndef f():\n    return nn.Linear(-1, 2)", "train.py:3"),
        ("raise SystemExit(3)", "`if __name__ == '__main__':`"),
    ],
)
def test_the_line_of_the_file_is_said(run: Any, tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "train.py").write_text(code)
    result = run("train.py:f", "--input", "8")
    assert said in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.py:make_model"], "needs --input"),
        (["train.py"], "train.py:make_model"),
        (["train.py:"], "train.py:make_model"),
        (["train.py:misspelt"], "a dict with 'input'; did you mean inputs?"),
        (["train.py:without_a_module"], "without the module"),
        (["train.py:class_for_a_module"], "its module is type, not a torch.nn.Module"),
        (["train.py:make_job", "--weight-decay", "0.1"], "name another with --optimizer"),
        (["train.py:nobody", "--input", "8"], "has no function nobody."),
        (["train.py:make_modle", "--input", "8"], "did you mean make_model?"),
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
