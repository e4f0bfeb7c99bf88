"""The command line against a real server with canned answers."""

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
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from fake_server import (
    ACCUMULATION,
    DEVICE_USED,
    ESTIMATE,
    GIB,
    FakePlanner,
    bad_request,
    plan,
    recommendation,
)
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan import _yaml, jobfile
from memplan.cli.commands import cli
from memplan.types import (
    AllocatorSettings,
    CatalogModel,
    DataType,
    GpuTarget,
    GradientClipping,
    InputTensor,
    Loss,
    MemoryFormat,
    Model,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    PlanAccumulationResponse,
    PlanJobRequest,
    Precision,
    RecommendBatchSizeResponse,
    Scheduler,
    TrainingJob,
    TrainingLoop,
    Verdict,
    ZeroGrad,
)
from memplan.wire import to_dict

Run = Callable[..., Result]

MEMPLAN = Path(sys.executable).with_name("memplan")


@pytest.fixture
def run(planner: FakePlanner, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line against the fake server."""
    monkeypatch.setenv("MEMPLAN_SERVER", planner.target)
    monkeypatch.setenv("COLUMNS", "100")

    def run(line: str, **kwargs: Any) -> Result:
        return CliRunner().invoke(cli, line.split(), **kwargs)

    return run


def process(line: str, planner: FakePlanner, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MEMPLAN_SERVER": planner.target, **kwargs.pop("env", {})}
    return subprocess.run(
        [MEMPLAN, *line.split()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **kwargs,
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


class TestRequests:
    def test_every_option(self, run: Run, planner: FakePlanner) -> None:
        line = (
            "plan timm/x --input 3x224x224 --input m=512:int64 --batch-size 64 "
            "--precision AMP_BF16 --loss mse --optimizer custom "
            "--optimizer-implementation fused --momentum 0.9 --nesterov --no-amsgrad --centered "
            "--weight-decay 0 --state-count 2 --memory-format channels-last --cudnn-benchmark "
            "--zero-grad never --clip-gradients norm --accumulation-steps 4 "
            "--allocator-conf expandable_segments:True,max_split_size_mb:128 "
            "--model-config num_classes=10 --model-config act=gelu --model-config eps=1e-6 "
            "--task masked-lm --gpu nvidia-t4:12GiB --gpu a100 --headroom 0.1 "
            "--confidence 0.95 --global-batch-size 1024 --data-parallel-size 8 --measure 30 "
            "--timeout 7"
        )
        assert run(line).exit_code == 0
        [request] = planner.requests
        assert request == PlanJobRequest(
            job=TrainingJob(
                model=Model(
                    catalog=CatalogModel(
                        name="timm/x",
                        config={"num_classes": 10, "act": "gelu", "eps": 1e-6},
                        task="masked-lm",
                    )
                ),
                inputs=(
                    InputTensor(shape=(3, 224, 224)),
                    InputTensor(name="m", shape=(512,), dtype=DataType.INT64),
                ),
                loss=Loss.MSE,
                optimizer=Optimizer(
                    type=OptimizerType.CUSTOM,
                    implementation=OptimizerImplementation.FUSED,
                    momentum=0.9,
                    nesterov=True,
                    centered=True,
                    weight_decay=0.0,
                    state_count=2,
                ),
                precision=Precision.AMP_BF16,
                memory_format=MemoryFormat.CHANNELS_LAST,
                cudnn_benchmark=True,
                loop=TrainingLoop(
                    zero_grad=ZeroGrad.NEVER,
                    gradient_clipping=GradientClipping.NORM,
                    accumulation_steps=4,
                ),
                allocator=AllocatorSettings(expandable_segments=True, max_split_size_mb=128),
                micro_batch_size=64,
            ),
            gpus=(GpuTarget(gpu_type="nvidia-t4", free_bytes=12 * GIB), GpuTarget(gpu_type="a100")),
            global_batch_size=1024,
            data_parallel_size=8,
            headroom_fraction=0.1,
            confidence=0.95,
            measurement_budget=timedelta(seconds=30),
        )
        assert 35 < planner.seconds_left[0] < 38

    def test_options_override_the_file(
        self, run: Run, planner: FakePlanner, tmp_path: Path
    ) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(
            "model: {name: timm/x, config: {a: 1, b: 2}}\n"
            "inputs: [3x4]\nbatch_size: 8\noptimizer: {type: sgd, momentum: 0.9}\n"
            "gpus: [t4]\nglobal_batch_size: 64\nheadroom_fraction: 0\n"
            "confidence: 0.9\n"
        )
        run(f"plan -f {path}")
        run(f"plan -f {path} --batch-size 4 --model-config b=3 --momentum 0.5 --gpu l4")
        run(f"plan -f {path} --optimizer adam --input 5 timm/y --confidence 0.95")
        as_is, changed, other = planner.requests
        assert as_is == jobfile.load(path)
        assert changed.job.model.catalog.config == {"a": 1, "b": 3}
        assert changed.job.optimizer == Optimizer(type=OptimizerType.SGD, momentum=0.5)
        assert changed.job.micro_batch_size == 4
        assert changed.gpus == (GpuTarget(gpu_type="l4"),)
        assert (changed.global_batch_size, changed.headroom_fraction) == (64, 0.0)
        assert (changed.confidence, other.confidence) == (0.9, 0.95)
        assert other.job.optimizer == Optimizer(type=OptimizerType.ADAM)
        assert other.job.model == Model(catalog=CatalogModel(name="timm/y"))
        assert other.job.inputs == (InputTensor(shape=(5,)),)

    def test_a_file_from_stdin(self, run: Run, planner: FakePlanner) -> None:
        assert run("plan -f -", input="model: a/b\nbatch_size: 3\n").exit_code == 0
        assert planner.requests[0].job.micro_batch_size == 3

    def test_the_other_commands(self, run: Run, planner: FakePlanner) -> None:
        run("estimate a/b --batch-size 3 --gpu t4 --confidence 0.9")
        run(
            "batch-size a/b --gpu t4 --gpu l4:1GiB --multiple-of 4 --max-batch-size 99 "
            "--confidence 0.95"
        )
        run("accumulate a/b --gpu t4 --global-batch-size 9 --data-parallel-size 3 --headroom 0")
        run("accumulate a/b --gpu t4 --global-batch-size 9 --confidence 0.98")
        run("gpus a100")
        run("models resnet")
        estimate, batch, accumulation, surer, *pages, models = planner.requests
        found = [request.confidence for request in (estimate, batch, accumulation, surer)]
        assert found == [0.9, 0.95, 0.0, 0.98]
        assert (estimate.gpu_type, estimate.job.micro_batch_size) == ("t4", 3)
        assert batch.gpus[1] == GpuTarget(gpu_type="l4", free_bytes=GIB)
        assert (batch.multiple_of, batch.max_batch_size) == (4, 99)
        assert accumulation.gpu == GpuTarget(gpu_type="t4")
        assert (accumulation.global_batch_size, accumulation.data_parallel_size) == (9, 3)
        assert accumulation.headroom_fraction == 0.0
        assert {page.filter for page in pages} == {"a100"}
        assert models.filter == "resnet"


class TestDryRun:
    def test_prints_a_job_file_and_asks_nobody(self, run: Run, planner: FakePlanner) -> None:
        line = "plan a/b --input 3x4 --batch-size 2 --gpu t4:3GiB --format yaml --dry-run"
        result = run(line)
        assert result.exit_code == 0
        assert result.stdout == (
            "model: a/b\ninputs:\n- 3x4\nmicro_batch_size: 2\ngpus:\n- t4:3GiB\n"
        )
        assert run(line.replace("yaml", "text")).stdout == result.stdout
        assert json.loads(run(line.replace("yaml", "json")).stdout)["inputs"] == ["3x4"]
        assert planner.requests == []

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        options=st.fixed_dictionaries(
            {},
            optional={
                "--batch-size": st.integers(1, 2**63 - 1),
                "--input": st.sampled_from(["3x224x224", "512:int64", "a=5:bool", "7"]),
                "--optimizer": st.sampled_from([m.value for m in OptimizerType][1:]),
                "--momentum": st.floats(allow_nan=False),
                "--weight-decay": st.floats(allow_nan=False),
                "--precision": st.sampled_from([m.value for m in Precision][1:]),
                "--gpu": st.sampled_from(["nvidia-t4", "t4:12GiB", "x:1", "y:0"]),
                "--headroom": st.floats(0, 1),
                "--confidence": st.floats(0, 1),
                "--model-config": st.sampled_from(["a=no", "a=1e-3", "a=[1, {b: ~}]", "a='1'"]),
                "--task": st.sampled_from(["masked-lm", "no", "12:30"]),
                "--allocator-conf": st.sampled_from(["expandable_segments:True", "x"[:0]]),
                "--global-batch-size": st.integers(1, 2**40),
                "--measure": st.integers(1, 10**6),
            },
        )
    )
    def test_the_file_is_the_same_job(
        self, planner: FakePlanner, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        words = ["a/b", *(f"{name}={value}" for name, value in options.items())]
        planner.requests.clear()
        runner = CliRunner(env={"MEMPLAN_SERVER": planner.target})
        printed = runner.invoke(cli, ["plan", *words, "--dry-run", "--format", "yaml"])
        assert printed.exit_code == 0, printed.output
        path = tmp_path / "job.yaml"
        path.write_text(printed.stdout)
        runner.invoke(cli, ["plan", *words])
        runner.invoke(cli, ["plan", "-f", str(path)])
        directly, from_file = planner.requests
        assert directly == from_file


class TestOutput:
    def test_plan_as_data(self, run: Run) -> None:
        result = run("plan a/b --batch-size 1 --global-batch-size 1024 --format json")
        data = json.loads(result.stdout)
        keys = {"estimate", "batch_sizes", "accumulation", "placements", "profile"}
        assert data.keys() == keys | {"measurement_notes", "scheduler_request", "job_digest"}
        assert json.loads(run("plan a/b --global-batch-size 1024 --json").stdout) == data
        assert data["placements"][0]["verdict"] == "FITS"
        assert data["placements"][1]["missing_bytes"] == GIB
        assert data["accumulation"]["accumulation_steps"] == 18
        assert sum(data["estimate"]["breakdown"].values()) == DEVICE_USED
        assert _yaml.load(run("plan a/b --global-batch-size 1024 --format yaml").stdout) == data

    def test_plan_without_accumulation(self, run: Run) -> None:
        assert json.loads(run("plan a/b --format json").stdout)["accumulation"] is None

    def test_the_others_as_data(self, run: Run) -> None:
        estimate = json.loads(run("estimate a/b --format json").stdout)
        assert estimate == {**to_dict(ESTIMATE), "profile": None}
        accumulation = run("accumulate a/b --gpu x --format json").stdout
        assert json.loads(accumulation) == to_dict(ACCUMULATION)
        [batch] = json.loads(run("batch-size a/b --format json").stdout)["batch_sizes"]
        assert batch["max_batch_size"] == 170
        types = json.loads(run("gpus --format json").stdout)["gpu_types"]
        assert [one["name"] for one in types] == [f"gpu-{i}" for i in range(5)]
        [model] = json.loads(run("models --format json").stdout)["models"]
        assert model == {"name": "torchvision/resnet50", "library": "torchvision"}
        assert json.loads(run("version --format json").stdout)["memplan"]

    def test_plan_as_text(self, run: Run) -> None:
        text = run("plan a/b --batch-size 64 --optimizer adam --global-batch-size 1024").stdout
        assert text.startswith("a/b, batch 64, adam, fp32\n")
        for expected in (
            "expected 6.18 GiB, at most 7.00 GiB (95% confidence)",
            "peak in the backward pass",
            "activations        5.12 GiB  82.9%",
            "gpu-1  does not fit  6.18 GiB  7.00 GiB   6.00 GiB  -1.00 GiB",
            "fits with micro-batch 24 x 43 steps",
            "gpu-0          168  14.00 GiB      170           170",
            "micro-batch 60, 18 steps: 17 x 60 + 4 = 1,024; needs 7.00 GiB",
            "Divide the loss by 18.",
            "layer1.0.bn3  BatchNorm2d  392.0 MiB",
            "The loop keeps its variables",
            "torch 2.13.0, torchvision 0.28.0",
        ):
            assert expected in text
        assert "\x1b" not in text

    def test_one_step_is_one_step(self, run: Run, planner: FakePlanner) -> None:
        once = dataclasses.replace(
            ACCUMULATION, accumulation_steps=1, micro_batch_size=9, last_micro_batch_size=9
        )
        planner.answers["PlanAccumulation"] = lambda request: PlanAccumulationResponse(
            accumulation=once
        )
        assert "micro-batch 9, 1 step: 1 x 9" in run("accumulate a/b --gpu x").stdout

    def test_the_bar_is_to_scale(self, run: Run) -> None:
        text = run("estimate a/b").stdout
        [bar] = re.findall(r"^  ([A-Z.]{20,})$", text, re.MULTILINE)
        assert len(bar) == 72
        assert abs(bar.count("A") - 72 * 0.829) <= 1
        assert len(re.findall("A+", bar)) == 1

    @pytest.mark.parametrize("columns", ["24", "40", "60"])
    @pytest.mark.parametrize("line", ["plan a/b --global-batch-size 9", "gpus", "batch-size a/b"])
    def test_narrow_terminals(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, columns: str, line: str
    ) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        lines = run(line).stdout.splitlines()
        assert max(map(len, lines)) <= int(columns)

    def test_long_names_of_gpus_keep_the_table(
        self, run: Run, planner: FakePlanner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        answer = plan(Verdict.DOES_NOT_FIT)
        long = GpuTarget(gpu_type="nvidia-h100-pcie-80gb-mig-1g.20gb")
        placements = tuple(dataclasses.replace(p, gpu=long) for p in answer.placements)
        planner.answers["PlanJob"] = lambda _: dataclasses.replace(answer, placements=placements)
        text = run("plan a/b").stdout
        assert f"{long.gpu_type}  does not fit  6.18 GiB  7.00 GiB  6.00 GiB\n" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_a_table_may_be_as_wide_as_the_terminal(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        widest = max(map(len, run("gpus").stdout.splitlines()))
        monkeypatch.setenv("COLUMNS", str(widest))
        assert run("gpus").stdout.startswith("GPU ")

    def test_models_are_one_a_line(self, run: Run) -> None:
        assert run("models").stdout == "torchvision/resnet50\n"

    def test_version(self, run: Run) -> None:
        lines = run("version").stdout.splitlines()
        assert lines[0].startswith("memplan ")
        assert any(line.startswith("grpcio ") for line in lines)


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
