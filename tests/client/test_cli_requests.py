"""The command line against a real server with canned answers: what is asked and what is shown."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from commands import Run
from fake_server import (
    ACCUMULATION,
    DEVICE_USED,
    ESTIMATE,
    GIB,
    FakePlanner,
    plan,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan import _yaml, jobfile
from memplan.cli.commands import cli
from memplan.types import (
    AllocatorSettings,
    CatalogModel,
    DataParallel,
    DataParallelStrategy,
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
    TrainingJob,
    TrainingLoop,
    Verdict,
    ZeroGrad,
)
from memplan.wire import to_dict


class TestRequests:
    def test_every_option(self, run: Run, planner: FakePlanner) -> None:
        line = (
            "plan timm/x --input 3x224x224 --input m=512:int64 --batch-size 64 "
            "--precision AMP_BF16 --loss mse --optimizer custom "
            "--optimizer-implementation fused --momentum 0.9 --nesterov --no-amsgrad --centered "
            "--weight-decay 0 --state-count 2 --memory-format channels-last --cudnn-benchmark "
            "--activation-checkpointing --data-parallel ddp --gradient-as-bucket-view "
            "--bucket-cap-mb 50 --shard-count 4 --no-reshard-after-forward "
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
                activation_checkpointing=True,
                data_parallel=DataParallel(
                    strategy=DataParallelStrategy.DDP,
                    gradient_as_bucket_view=True,
                    bucket_cap_mb=50,
                    shard_count=4,
                    reshard_after_forward=False,
                ),
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

    def test_a_file_for_ranks_is_about_one_of_them(
        self, run: Run, planner: FakePlanner, tmp_path: Path
    ) -> None:
        file = tmp_path / "job.yaml"
        file.write_text("model: a/b\nbatch_size: 3\ngpus: [t4]\ndata_parallel_size: 4\n")
        run(f"estimate -f {file}")
        run(f"estimate -f {file} --data-parallel none")
        run(f"plan -f {file}")
        strategies = [request.job.data_parallel.strategy for request in planner.requests]
        assert strategies == [
            DataParallelStrategy.DDP,
            DataParallelStrategy.NONE,
            DataParallelStrategy.UNSPECIFIED,
        ]


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
