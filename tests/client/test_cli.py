"""The command line against a real server with canned answers: exit codes, errors, processes."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from commands import MEMPLAN, Run, process
from fake_server import (
    ACCUMULATION,
    FakePlanner,
    bad_request,
    plan,
    recommendation,
)
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from memplan.types import (
    PlanAccumulationResponse,
    RecommendBatchSizeResponse,
    Scheduler,
    Verdict,
)


class TestExitCodes:
    @pytest.mark.parametrize(
        ("verdicts", "code"),
        [
            ([Verdict.FITS], 0),
            ([Verdict.DOES_NOT_FIT, Verdict.UNCERTAIN, Verdict.FITS], 0),
            ([Verdict.DOES_NOT_FIT], 3),
            ([Verdict.UNCERTAIN], 5),
            ([Verdict.DOES_NOT_FIT, Verdict.UNCERTAIN], 5),
            ([Verdict.UNSPECIFIED], 3),
        ],
    )
    @pytest.mark.parametrize("style", ["text", "json", "yaml"])
    def test_plan(
        self, run: Run, planner: FakePlanner, verdicts: list[Verdict], code: int, style: str
    ) -> None:
        planner.answers["PlanJob"] = lambda request: plan(*verdicts)
        result = run(f"plan a/b --batch-size 1 --format {style}")
        assert result.exit_code == code, result.output
        assert result.stderr == ""

    def test_plan_for_a_scheduler(self, run: Run, planner: FakePlanner) -> None:
        answer = dataclasses.replace(plan(Verdict.FITS), scheduler_request="# it\n#SBATCH x\n")
        planner.answers["PlanJob"] = lambda request: answer
        result = run("plan a/b --batch-size 1 --for SLURM")
        assert (result.exit_code, result.stdout) == (0, "# it\n#SBATCH x\n")
        assert planner.requests[-1].scheduler is Scheduler.SLURM
        result = run("plan a/b --batch-size 1 --for slurm --json")
        assert json.loads(result.stdout)["scheduler_request"] == answer.scheduler_request

    @pytest.mark.parametrize(("batches", "code"), [([0, 0], 3), ([0, 7], 0)])
    def test_batch_size(
        self, run: Run, planner: FakePlanner, batches: list[int], code: int
    ) -> None:
        answers = tuple(recommendation(f"gpu-{i}", batch) for i, batch in enumerate(batches))
        planner.answers["RecommendBatchSize"] = lambda request: RecommendBatchSizeResponse(
            batch_sizes=answers
        )
        result = run("batch-size a/b")
        assert result.exit_code == code
        assert "gpu-0: Not even one sample fits." in result.stdout

    @pytest.mark.parametrize(("feasible", "code"), [(True, 0), (False, 3)])
    def test_accumulate(self, run: Run, planner: FakePlanner, feasible: bool, code: int) -> None:
        answer = dataclasses.replace(ACCUMULATION, feasible=feasible)
        planner.answers["PlanAccumulation"] = lambda request: PlanAccumulationResponse(
            accumulation=answer
        )
        assert run("accumulate a/b --gpu x --global-batch-size 9").exit_code == code

    def test_estimate(self, run: Run) -> None:
        assert run("estimate a/b --batch-size 1").exit_code == 0

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            ("INVALID_ARGUMENT", 2),
            ("NOT_FOUND", 2),
            ("UNAVAILABLE", 4),
            ("RESOURCE_EXHAUSTED", 1),
            ("DEADLINE_EXCEEDED", 1),
            ("INTERNAL", 1),
            ("UNIMPLEMENTED", 1),
            ("UNAUTHENTICATED", 1),
        ],
    )
    @pytest.mark.parametrize("command", ["plan a/b --batch-size 1", "gpus"])
    def test_errors(
        self, run: Run, planner: FakePlanner, status: str, code: int, command: str
    ) -> None:
        planner.fail("PlanJob", grpc.StatusCode[status])
        planner.fail("ListGpuTypes", grpc.StatusCode[status])
        result = run(command)
        assert result.exit_code == code
        assert result.stdout == ""
        assert "told so" in result.stderr

    @pytest.mark.parametrize(
        "line",
        [
            "plan",
            "plan --batch-size 1",
            "plan a/b --batch-size x",
            "plan a/b --precision fp99",
            "plan a/b --input 3xx4",
            "plan a/b --gpu t4:12parsec",
            "plan a/b --allocator-conf max_split",
            "plan a/b --allocator-conf max_split_size:4",
            "plan a/b --model-config x",
            "plan a/b --format xml",
            "plan a/b --timeout 0",
            "plan -f missing.yaml",
            "plan a/b --tls-key missing.pem",
            "gpus --token-file README.md",
            "gpus --retries 5",
            "gpus --keepalive 1",
            "gpus --tls-server-name planner",
            "estimate a/b --gpu a --gpu b",
            "estimate a/b --gpu a:1GiB",
            "accumulate a/b --global-batch-size 4",
            "accumulate a/b --gpu a --gpu b",
            "plan a/b --measure soon",
            "plan a/b --measure 0",
            "plan a/b --measure 1e300",
            "profile",
            "profile a/b --device tpu",
            "profile a/b --memory-limit much",
            "profile a/b --time-limit -1",
            "profiles show",
            "profiles list --limit 0",
            "gpus --nope",
        ],
    )
    def test_usage(self, run: Run, planner: FakePlanner, line: str) -> None:
        result = run(line)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr
        assert planner.requests == []

    def test_a_token_by_option_or_variable(
        self, run: Run, planner: FakePlanner, tmp_path: Path
    ) -> None:
        for name in ("one", "two"):
            (tmp_path / name).write_text(name)
        variables = {
            "MEMPLAN_TOKEN_FILE": str(tmp_path / "two"),
            "MEMPLAN_CLIENT_PLAINTEXT_TOKEN": "true",
        }
        lists = f"gpus --server {planner.target},{planner.target}"
        assert run(f"{lists} --token-file {tmp_path / 'one'} --plaintext-token").exit_code == 0
        assert run(lists, env=variables).exit_code == 0
        assert run(f"{lists} --token-file {tmp_path / 'one'}", env=variables).exit_code == 0
        assert list(dict.fromkeys(planner.tokens)) == ["Bearer one", "Bearer two"]
        assert planner.tokens[-1] == "Bearer one"

    def test_servers_that_no_name_leads_to(self, run: Run) -> None:
        result = run("gpus --server no-such-name.invalid:1,no-other.invalid:1")
        assert result.exit_code == 4
        assert "no-such-name.invalid" in result.stderr

    def test_nobody_listens(self, run: Run) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            target = f"127.0.0.1:{taken.getsockname()[1]}"
            result = run(f"gpus --server {target}")
        assert result.exit_code == 4
        assert f"the server at {target} cannot be reached" in result.stderr
        assert "leave --server out" in result.stderr

    def test_defects_show_no_traceback(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: Any) -> Any:
            raise RuntimeError("oh")

        monkeypatch.setattr("memplan.client.Client.list_gpu_types", broken)
        result = run("gpus")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[0] == "memplan: a defect: RuntimeError: oh"
        assert "Traceback" not in result.stderr

    def test_every_code_is_in_the_help(self, run: Run) -> None:
        for command in ("", "plan", "estimate", "batch-size", "accumulate", "profile", "profiles"):
            text = run(f"{command} --help").stdout
            assert re.findall(r"^  +(\d+)  ", text, re.MULTILINE) == [
                "0",
                "1",
                "2",
                "3",
                "4",
                "5",
                "130",
            ]


class TestErrors:
    def test_violations_name_the_options_that_set_the_field(
        self, run: Run, planner: FakePlanner, tmp_path: Path
    ) -> None:
        path = tmp_path / "job.yaml"
        path.write_text("model: a/b\nloop: {accumulation_steps: 3}\nbatch_size: 3\n")
        details = bad_request(
            **{
                "job.inputs[0].shape[1]": "one",
                "job.optimizer.momentum": "two",
                "job.loop.accumulation_steps": "three",
                "gpus[0].gpu_type": "four",
                "job.micro_batch_size": "five",
                "": "six",
            }
        )
        planner.fail("PlanJob", grpc.StatusCode.INVALID_ARGUMENT, details)
        result = run(f"plan -f {path} --input 3x4 --momentum 0.5 --gpu t4")
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "memplan: the request has 6 mistakes:",
            "  --input: one",
            "  --momentum: two",
            f"  {path}: loop.accumulation_steps: three",
            "  --gpu: four",
            f"  {path}: micro_batch_size: five",
            "  six",
        ]

    def test_without_a_file_the_option_to_give_is_named(
        self, run: Run, planner: FakePlanner
    ) -> None:
        details = bad_request(
            job__micro_batch_size="is required",
            job__loop__keep_outputs="odd",
            gpu_type="no",
            confidence="too high",
        )
        planner.fail("EstimateMemory", grpc.StatusCode.INVALID_ARGUMENT, details)
        assert run("estimate a/b").stderr.splitlines() == [
            "memplan: the request has 4 mistakes:",
            "  --batch-size: is required",
            "  loop.keep_outputs: odd",
            "  --gpu: no",
            "  --confidence: too high",
        ]

    def test_options_that_no_file_has(self, run: Run, planner: FakePlanner, tmp_path: Path) -> None:
        path = tmp_path / "job.yaml"
        path.write_text("model: a/b\n")
        planner.fail(
            "RecommendBatchSize", grpc.StatusCode.INVALID_ARGUMENT, bad_request(multiple_of="odd")
        )
        assert "  --multiple-of: odd" in run(f"batch-size -f {path}").stderr

    def test_values_that_cannot_be_sent(self, run: Run) -> None:
        result = run(f"plan a/b --batch-size {2**63}")
        assert result.exit_code == 2
        assert "--batch-size: must be a whole number of 64 bits" in result.stderr

    def test_mistakes_in_files(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "job.yaml"
        path.write_text("modle: a/b\noptimizer: adm\n")
        result = run(f"plan -f {path}")
        assert result.exit_code == 2
        assert result.stderr.splitlines()[:2] == [
            f"memplan: {path} has 2 mistakes:",
            "  modle: unknown field; did you mean model?",
        ]

    def test_names_that_are_nearly_right(self, run: Run, planner: FakePlanner) -> None:
        assert "did you mean adam?" in run("plan a/b --optimizer adma").stderr
        message = "There is no model 'a/b'. Did you mean timm/a?"
        info = error_details_pb2.ErrorInfo(reason="UNKNOWN_NAME", metadata={"kind": "model"})
        planner.fail("PlanJob", grpc.StatusCode.NOT_FOUND, info, message=message)
        result = run("plan a/b")
        assert result.stderr.splitlines()[0] == f"memplan: {message}"
        assert "`memplan models SEARCH`" in result.stderr

    def test_when_to_try_again(self, run: Run, planner: FakePlanner) -> None:
        details = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2))
        planner.fail("PlanJob", grpc.StatusCode.RESOURCE_EXHAUSTED, details)
        assert "Try again in 2 seconds." in run("plan a/b").stderr

    def test_no_answer_in_time(self, run: Run, planner: FakePlanner) -> None:
        planner.answers["PlanJob"] = lambda request: time.sleep(0.5) or plan(Verdict.FITS)
        result = run("plan a/b --timeout 0.1")
        assert result.exit_code == 1
        assert result.stderr == (
            "memplan: there is no answer after 0.1 seconds.\n  --timeout SECONDS waits longer.\n"
        )

    def test_configs_need_a_named_model(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "job.yaml"
        path.write_text("model: [flatten]\n")
        result = run(f"plan -f {path} --model-config a=1")
        assert result.exit_code == 2
        assert "--model-config needs a model with a name" in result.stderr


class TestProcess:
    def test_a_closed_pipe_is_no_error(self, planner: FakePlanner) -> None:
        command = (
            f"MEMPLAN_SERVER={planner.target} {MEMPLAN} plan a/b --batch-size 1 --format json"
            " | head -n 1; echo ${PIPESTATUS[0]}"
        )
        result = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
        )
        assert result.stdout == "{\n0\n"
        assert result.stderr == ""

    def test_a_reader_that_is_gone_already(self, planner: FakePlanner) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stdout:
            result = subprocess.run(
                [MEMPLAN, "plan", "a/b"],
                env={**os.environ, "MEMPLAN_SERVER": planner.target},
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=60,
            )
        assert (result.returncode, result.stderr) == (0, "")

    def test_output_that_the_locale_cannot_say(self, planner: FakePlanner) -> None:
        planner.fail("PlanJob", grpc.StatusCode.INTERNAL, message="caf\u00e9 \u2713")
        result = process("plan a/b", planner, env={"PYTHONIOENCODING": "ascii"})
        assert result.returncode == 1
        assert "caf" in result.stderr

    def test_colours_only_where_wanted(self, planner: FakePlanner) -> None:
        coloured = process("plan a/b", planner, env={"FORCE_COLOR": "1"}).stdout
        plain = process("plan a/b", planner, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout
        assert "\x1b[1;32mfits" in coloured
        assert "32m" not in plain

    def test_progress_is_on_stderr_and_only_on_a_terminal(self, planner: FakePlanner) -> None:
        planner.answers["PlanJob"] = lambda request: time.sleep(0.3) or plan(Verdict.FITS)
        master, slave = pty.openpty()
        result = subprocess.run(
            [MEMPLAN, "plan", "a/b", "--format", "json"],
            env={**os.environ, "MEMPLAN_SERVER": planner.target, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=slave,
            check=False,
            timeout=60,
        )
        os.close(slave)
        shown = os.read(master, 65536).decode()
        os.close(master)
        assert json.loads(result.stdout)["placements"]
        assert "planning" in shown
        assert process("plan a/b", planner).stderr == ""

    def test_interrupted(self, planner: FakePlanner, start: Any) -> None:
        planner.answers["PlanJob"] = lambda request: time.sleep(2) or plan(Verdict.FITS)
        child = start("plan a/b")
        deadline = time.monotonic() + 30
        while not planner.requests and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
        assert (child.returncode, out, err.strip()) == (130, "", "memplan: interrupted")

    def test_the_command_takes_neither_torch_nor_the_server(self, planner: FakePlanner) -> None:
        code = (
            "import sys; from memplan.cli.commands import cli\n"
            "try: cli(['plan', 'a/b', '--format', 'json'])\n"
            "except SystemExit: pass\n"
            "print(sorted({'torch', 'numpy', 'rich', 'memplan_server'} & sys.modules.keys()),"
            " file=sys.stderr)"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "MEMPLAN_SERVER": planner.target},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert result.stderr == "[]\n"
        assert json.loads(result.stdout)

    @pytest.mark.parametrize(
        ("missing", "code", "message"),
        [
            ("memplan_server", 4, "pip install 'memplan[server,models]'"),
            ("grpc_health", 4, "grpc_health is not installed"),
            ("rich", 1, "pip install 'memplan[cli]'"),
            ("click", 1, "pip install 'memplan[cli]'"),
        ],
    )
    def test_parts_that_are_not_installed(self, missing: str, code: int, message: str) -> None:
        script = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from memplan.cli import main\n"
            "sys.argv = ['memplan', 'gpus']\n"
            "main()"
        )
        environment = {k: v for k, v in os.environ.items() if k != "MEMPLAN_SERVER"}
        result = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert result.returncode == code, result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr
