"""What people type wrong on the command line, and what it says then."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from commands import MEMPLAN, Run
from fake_server import FakePlanner, bad_request
from google.rpc import error_details_pb2

from memplan.cli.commands import cli
from memplan.types import ListGpuTypesResponse, ListModelsResponse


@pytest.fixture
def run(planner: FakePlanner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command line against the fake server, in an empty folder."""
    monkeypatch.setenv("MEMPLAN_SERVER", planner.target)
    monkeypatch.chdir(tmp_path)
    return lambda line: CliRunner().invoke(cli, line.split())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plan a/b --batch-size 0", "'--batch-size': '0' is not a whole number of at least 1"),
        (
            "plan a/b --global-batch-size 0",
            "'--global-batch-size': '0' is not a whole number of at least 1",
        ),
        (
            "plan a/b --data-parallel-size -1",
            "'--data-parallel-size': '-1' is not a whole number of at least 1",
        ),
        (
            "plan a/b --accumulation-steps 0",
            "'--accumulation-steps': '0' is not a whole number of at least 1",
        ),
        ("plan a/b --batch-size 4.5", "'4.5' is not a whole number of at least 1"),
        (
            "batch-size a/b --multiple-of 0",
            "'--multiple-of': '0' is not a whole number of at least 1",
        ),
        ("plan a/b --json --format yaml", "--json and --format yaml ask for two things"),
        ("gpus --json --format text", "--json and --format text ask for two things"),
        ("plan a/b --config config.json", "MODEL and --config each say which model it is"),
        ("plan --config .", "config.json cannot be read: No such file"),
        ("plan a/b --allocator-conf foo:1", "foo: unknown field"),
        ("plan a/b --input 3x4:float", "dtype: there is no 'float'"),
        ("gpus --server http://planner:50051/", "is a URL: give host:port, such as planner:50051"),
        ("gpus --server https://planner:50051", "is a URL: give host:port and --tls"),
        ("gpus --server planner", "'planner' is not host:port"),
        ("gpus --server planner:99999", "'planner:99999' is not host:port"),
        ("gpus --server planner:5 --token-file /dev/null", "--token-file needs --tls"),
        ("gpus --server planner:5 --tls-cert /dev/null", "--tls-cert and --tls-key belong"),
    ],
)
def test_the_message_says_which_option(
    run: Run, planner: FakePlanner, line: str, said: str
) -> None:
    result = run(line)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert planner.requests == []


def test_options_of_a_model_are_named(run: Run, planner: FakePlanner) -> None:
    details = bad_request(job__model__catalog__config__num_clases="no such option")
    planner.fail("PlanJob", grpc.StatusCode.INVALID_ARGUMENT, details)
    stderr = run("plan a/b --model-config num_clases=3").stderr
    assert "  --model-config num_clases: no such option" in stderr
    Path("config.json").write_text('{"model_type": "llama", "num_clases": 3}')
    assert "  --config num_clases: no such option" in run("plan --config config.json").stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [a,\ngpus: 3", "line 2, column 8: while parsing a flow sequence: expected"),
        ("model: a/b\nmodel: c/d\n", "line 2, column 1: the key 'model' is there twice"),
    ],
)
def test_mistakes_of_yaml_have_a_line(run: Run, text: str, said: str) -> None:
    Path("job.yaml").write_text(text)
    result = run("plan -f job.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"memplan: job.yaml is no YAML: {said}")


def test_names_of_the_hub_need_a_config(run: Run, planner: FakePlanner) -> None:
    for name, is_hub in (("meta-llama/Llama-2-7b", True), ("torchvision/resnet99", False)):
        metadata = {"kind": "model", "name": name}
        info = error_details_pb2.ErrorInfo(reason="UNKNOWN_NAME", metadata=metadata)
        planner.fail("PlanJob", grpc.StatusCode.NOT_FOUND, info, message=f"no {name}")
        assert ("memplan plan --config config.json" in run(f"plan {name}").stderr) is is_hub


def test_limits_of_the_server_are_no_timeouts(run: Run, planner: FakePlanner) -> None:
    message = "not done in the server's limit of 120 s: raise its --job-time-limit"
    planner.fail("PlanJob", grpc.StatusCode.DEADLINE_EXCEEDED, message=message)
    assert run("plan a/b").stderr == f"memplan: {message}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("webhook --cert missing.pem", "missing.pem cannot be read: No such file or directory"),
        ("kueue --kubeconfig missing", "Name a file with --kubeconfig."),
    ],
)
def test_files_of_services(run: Run, line: str, said: str) -> None:
    pytest.importorskip("aiohttp")
    pytest.importorskip("kubernetes")
    result = run(line)
    assert result.exit_code == 2
    assert said in result.stderr
    assert ".." not in result.stderr


def test_names_without_a_library(run: Run, planner: FakePlanner) -> None:
    details = bad_request(job__model__catalog__name="must be `library/model`")
    planner.fail("PlanJob", grpc.StatusCode.INVALID_ARGUMENT, details)
    assert "`memplan models resnet18` lists those" in run("plan resnet18").stderr
    assert "`memplan models" not in run("plan a/b").stderr


def test_functions_that_end_the_program(run: Run) -> None:
    Path("train.py").write_text("import sys\ndef make():\n    sys.exit(3)\n")
    result = run("plan train.py:make --input 3 --batch-size 1")
    assert result.exit_code == 2
    assert "train.py:3, `sys.exit(3)`: train.py:make() ends the program" in result.stderr


def test_what_is_not_found_is_said(run: Run, planner: FakePlanner) -> None:
    planner.answers["ListGpuTypes"] = lambda request: ListGpuTypesResponse()
    assert "no GPU type has 'zzz' in its name" in run("gpus zzz").stderr
    planner.answers["ListModels"] = lambda request: ListModelsResponse()
    assert "no model has 'zzz' in its name" in run("models zzz").stderr


def test_a_server_that_is_not_there(run: Run) -> None:
    result = run("gpus --server localhost:1 --retries 0")
    assert result.exit_code == 4
    assert "give --tls or --tls-ca if it speaks TLS, or leave --server out" in result.stderr
    assert "if it speaks TLS" not in run("gpus --server localhost:1 --retries 0 --tls").stderr


def test_a_server_without_tls(run: Run, planner: FakePlanner) -> None:
    result = run(f"gpus --server {planner.target} --retries 0 --tls")
    assert result.exit_code == 4
    assert "It does not speak TLS: leave out --tls" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("line", ["gpus", "gpus --json", "gpus --help"])
def test_a_full_disk(planner: FakePlanner, line: str) -> None:
    with open("/dev/full", "w") as stdout:
        result = subprocess.run(
            [MEMPLAN, *line.split()],
            env={**os.environ, "MEMPLAN_SERVER": planner.target},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert result.returncode == 1
    assert result.stderr == "memplan: the answer cannot be written: No space left on device\n"


def test_a_closed_stdout(planner: FakePlanner) -> None:
    command = f"MEMPLAN_SERVER={planner.target} {MEMPLAN} gpus >&-"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_list_of_commands_is_not_cut_off(run: Run) -> None:
    lines = run("--help").stdout.partition("Commands:")[2].partition("Exit codes")[0]
    assert "memplan" in lines
    assert "..." not in lines
