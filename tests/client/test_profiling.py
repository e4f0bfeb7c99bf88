"""The commands about measured profiles, against a real server with canned answers."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from commands import Run
from fake_server import ESTIMATE, GIB, PROFILE, FakePlanner, bad_request, plan, stored
from google.rpc import error_details_pb2

from memplan import _yaml
from memplan.cli.progress import memory, stage
from memplan.types import (
    DeviceType,
    EstimateMemoryResponse,
    InputTensor,
    ListProfilesResponse,
    MeasuredProfile,
    ProfileMemoryRequest,
    ProfileMemoryResponse,
    ProfileProgress,
    ProfileStage,
    ThroughputPoint,
    Verdict,
)
from memplan.wire import from_dict, to_dict

MEMPLAN = Path(sys.executable).with_name("memplan")

QUEUED = ProfileProgress(
    stage=ProfileStage.QUEUED, queue_position=2, expected_wait=timedelta(seconds=90)
)
SECOND_STEP = ProfileProgress(
    stage=ProfileStage.MEASURING,
    step=2,
    step_count=3,
    micro_batch_size=64,
    peak_allocated_bytes=5 * GIB,
    peak_reserved_bytes=6 * GIB,
)


@pytest.fixture(autouse=True)
def profile(planner: FakePlanner) -> None:
    """The server measures PROFILE."""
    measures(planner, PROFILE)


def measures(planner: FakePlanner, profile: MeasuredProfile) -> None:
    """Let the server answer profile requests with some progress and this."""
    progress = [ProfileMemoryResponse(progress=p) for p in (QUEUED, SECOND_STEP)]
    events = [*progress, ProfileMemoryResponse(profile=profile)]
    planner.answers["ProfileMemory"] = lambda request: iter(events)


class TestProfile:
    def test_every_option(self, run: Run, planner: FakePlanner) -> None:
        line = (
            "profile a/b --input 3x4 --batch-size 64 --device CUDA --gpu nvidia-t4 --steps 7 "
            "--warmup-steps 1 --memory-limit 12GiB --time-limit 90.5 --wait --find-batch-size "
            "--timeout 500"
        )
        assert run(line).exit_code == 0
        request = planner.requests[0]
        assert request.job.inputs == (InputTensor(shape=(3, 4)),)
        assert request == ProfileMemoryRequest(
            job=request.job,
            step_count=7,
            warmup_step_count=1,
            memory_limit_bytes=12 * GIB,
            time_limit=timedelta(seconds=90.5),
            device_type=DeviceType.CUDA,
            gpu_type="nvidia-t4",
            wait_for_gpu=True,
            find_batch_size=True,
        )
        assert 495 < planner.seconds_left[0] < 501

    def test_without_options_the_server_chooses(self, run: Run, planner: FakePlanner) -> None:
        run("profile a/b --batch-size 1")
        request = planner.requests[0]
        assert request == ProfileMemoryRequest(job=request.job)

    def test_gpus_of_a_file_are_not_where_it_is_measured(
        self, run: Run, planner: FakePlanner, tmp_path: Path
    ) -> None:
        path = tmp_path / "job.yaml"
        path.write_text("model: a/b\nbatch_size: 3\ngpus: [t4, l4]\nconfidence: 0.9\n")
        assert run(f"profile -f {path}").exit_code == 0
        profile, estimate = planner.requests
        assert profile.gpu_type == ""
        assert estimate.gpu_type == PROFILE.gpu_type
        assert estimate.confidence == 0.9
        details = bad_request(gpu_type="no", step_count="many", job__micro_batch_size="odd")
        planner.fail("ProfileMemory", grpc.StatusCode.INVALID_ARGUMENT, details)
        assert run(f"profile -f {path}").stderr.splitlines()[1:] == [
            "  --gpu: no",
            "  --steps: many",
            f"  {path}: micro_batch_size: odd",
        ]

    def test_as_text(self, run: Run) -> None:
        text = run("profile a/b --batch-size 64").stdout
        for expected in (
            "a/b, batch 64, sgd, fp32\n",
            "Measured on NVIDIA A100-SXM4-40GB (nvidia-a100-40gb) of gpu-7 on 2026-01-31 08:15 UTC",
            "                 measured  estimated  off by\n",
            "  allocated      5.59 GiB   5.59 GiB   +0.0%\n",
            "  CUDA context  450.0 MiB  450.0 MiB   +0.0%\n",
            "  device used    6.68 GiB   6.18 GiB   -7.5%\n",
            "  The upper bound of 7.00 GiB held.\n",
            "  120.5 ms a step (119.0 ms to 125.0 ms); 531.1 samples/s; 3 steps after 2 to warm up",
            "  backward pass   6.00 GiB  7.00 GiB\n",
            "  - Another process used the GPU before.\n",
            "  driver 570.1, torch 2.11.0\n",
            "  p-0, job d41d\n",
        ):
            assert expected in text

    def test_a_bound_that_did_not_hold(self, run: Run, planner: FakePlanner) -> None:
        measures(planner, replace(PROFILE, device_used_bytes=8 * GIB))
        assert "The upper bound of 7.00 GiB was exceeded." in run("profile a/b").stdout

    @pytest.mark.parametrize("style", ["--json", "--format yaml"])
    def test_as_data(self, run: Run, style: str) -> None:
        data = _yaml.load(run(f"profile a/b {style}").stdout)
        assert data == {"profile": to_dict(PROFILE), "estimate": to_dict(ESTIMATE)}
        assert from_dict(MeasuredProfile, data["profile"]) == PROFILE

    def test_out_of_memory_is_a_result(self, run: Run, planner: FakePlanner) -> None:
        failed = replace(
            PROFILE,
            out_of_memory=True,
            memory_limit_bytes=6 * GIB,
            requested_bytes=392 << 20,
            device_used_bytes=0,
        )
        measures(planner, failed)
        result = run("profile a/b")
        assert result.exit_code == 3
        assert "needs more than 6.00 GiB. It asked for 392.0 MiB more." in result.stdout
        assert "until then" in result.stdout
        assert "%" not in result.stdout

    def test_on_the_cpu_the_batch_that_was_run_is_compared(
        self, run: Run, planner: FakePlanner
    ) -> None:
        small = MeasuredProfile(
            device_name="EPYC",
            device_type=DeviceType.CPU,
            micro_batch_size=2,
            peak_allocated_bytes=GIB,
        )
        measures(planner, small)
        expected = replace(ESTIMATE, micro_batch_size=2, peak_allocated_bytes=GIB // 2)
        planner.answers["EstimateMemory"] = lambda request: EstimateMemoryResponse(
            estimate=expected
        )
        text = run("profile a/b --batch-size 64 --device cpu").stdout
        assert planner.requests[1].job.micro_batch_size == 2
        assert "Measured on EPYC, batch 2\n  On the CPU: " in text
        assert "allocated  1.00 GiB  512.0 MiB  -50.0%" in text
        assert "device used" not in text

    def test_batch_sizes(self, run: Run, planner: FakePlanner) -> None:
        points = (
            ThroughputPoint(micro_batch_size=64, samples_per_second=531.1, peak_reserved_bytes=GIB),
            ThroughputPoint(micro_batch_size=96, samples_per_second=520, peak_reserved_bytes=GIB),
            ThroughputPoint(micro_batch_size=128, peak_reserved_bytes=GIB, out_of_memory=True),
        )
        measures(
            planner,
            replace(
                PROFILE,
                throughput=points,
                largest_micro_batch_size=96,
                fastest_micro_batch_size=64,
            ),
        )
        lines = run("profile a/b --find-batch-size").stdout.splitlines()
        start = lines.index("Batch sizes")
        assert [line.split() for line in lines[start + 2 : start + 5]] == [
            "64 531.1 1.00 GiB fastest".split(),
            "96 520.0 1.00 GiB largest that runs".split(),
            "128 out of memory 1.00 GiB".split(),
        ]

    def test_a_measurement_is_shown_where_there_is_no_estimate(
        self, run: Run, planner: FakePlanner
    ) -> None:
        planner.fail("EstimateMemory", grpc.StatusCode.DEADLINE_EXCEEDED)
        result = run("profile a/b")
        assert result.exit_code == 0
        assert "no estimate to compare with: told so" in result.stderr
        assert "allocated      5.59 GiB\n" in result.stdout
        assert json.loads(run("profile a/b --json").stdout)["estimate"] is None

    def test_no_estimate_of_another_gpu_beside_an_unknown_one(
        self, run: Run, planner: FakePlanner
    ) -> None:
        measures(planner, replace(PROFILE, gpu_type=""))
        assert "estimated" not in run("profile a/b").stdout
        assert len(planner.requests) == 1

    def test_a_stream_without_a_profile(self, run: Run, planner: FakePlanner) -> None:
        planner.answers["ProfileMemory"] = lambda request: iter(())
        result = run("profile a/b")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "measured nothing" in result.stderr

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            ("FAILED_PRECONDITION", 1),
            ("RESOURCE_EXHAUSTED", 1),
            ("ABORTED", 1),
            ("UNAVAILABLE", 4),
            ("INVALID_ARGUMENT", 2),
        ],
    )
    def test_errors(self, run: Run, planner: FakePlanner, status: str, code: int) -> None:
        planner.fail("ProfileMemory", grpc.StatusCode[status])
        result = run("profile a/b")
        assert (result.exit_code, result.stdout) == (code, "")
        assert "told so" in result.stderr

    def test_no_profiler_answers(self, run: Run, planner: FakePlanner) -> None:
        info = error_details_pb2.ErrorInfo(reason="UNREACHABLE", domain="memplan")
        planner.fail("ProfileMemory", grpc.StatusCode.UNAVAILABLE, info, message="None answers.")
        result = run("profile a/b")
        assert (result.exit_code, result.stderr) == (4, "memplan: None answers.\n")

    def test_dry_run(self, run: Run, planner: FakePlanner) -> None:
        assert run("profile a/b --batch-size 2 --steps 9 --dry-run").stdout == (
            "model: a/b\nmicro_batch_size: 2\n"
        )
        assert planner.requests == []


class TestProgress:
    @pytest.mark.parametrize(
        ("progress", "expected"),
        [
            (QUEUED, "queued, 2 before it, about 1 min 30 s"),
            (ProfileProgress(stage=ProfileStage.QUEUED), "queued, next"),
            (
                ProfileProgress(stage=ProfileStage.BUILDING, micro_batch_size=8),
                "building the model, batch 8",
            ),
            (
                ProfileProgress(stage=ProfileStage.WARMING_UP, step=1, step_count=2),
                "warming up, step 1 of 2",
            ),
            (SECOND_STEP, "measuring, step 2 of 3, batch 64"),
            (ProfileProgress(), "under way"),
        ],
    )
    def test_stages(self, progress: ProfileProgress, expected: str) -> None:
        assert stage(progress) == expected

    def test_memory(self) -> None:
        assert memory(SECOND_STEP) == "5.00 GiB allocated, 6.00 GiB reserved"
        assert memory(QUEUED) == ""

    def test_it_is_live_on_a_terminal(self, planner: FakePlanner) -> None:
        def events(request: Any) -> Iterator[ProfileMemoryResponse]:
            for progress in (QUEUED, SECOND_STEP):
                yield ProfileMemoryResponse(progress=progress)
                time.sleep(0.4)
            yield ProfileMemoryResponse(profile=PROFILE)

        planner.answers["ProfileMemory"] = events
        terminal, stderr = pty.openpty()
        result = subprocess.run(
            [MEMPLAN, "profile", "a/b", "--json"],
            env={
                **os.environ,
                "MEMPLAN_SERVER": planner.target,
                "TERM": "xterm",
                "COLUMNS": "120",
                "NO_COLOR": "1",
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
            check=False,
            timeout=60,
        )
        os.close(stderr)
        shown = os.read(terminal, 1 << 16).decode()
        os.close(terminal)
        assert json.loads(result.stdout)["profile"] == to_dict(PROFILE)
        assert "queued, 2 before it, about 1 min 30 s" in shown
        assert "measuring, step 2 of 3, batch 64" in shown
        assert "5.00 GiB allocated, 6.00 GiB reserved" in shown

    def test_elsewhere_nothing_is_shown(self, run: Run) -> None:
        assert run("profile a/b").stderr == ""

    @pytest.mark.parametrize(
        ("number", "code", "said"),
        [(signal.SIGINT, 130, "memplan: interrupted"), (signal.SIGTERM, 143, "")],
    )
    def test_interrupting_cancels(
        self, planner: FakePlanner, start: Any, number: signal.Signals, code: int, said: str
    ) -> None:
        under_way, gone = threading.Event(), threading.Event()

        def events(request: Any) -> Iterator[ProfileMemoryResponse]:
            try:
                while True:
                    yield ProfileMemoryResponse(progress=SECOND_STEP)
                    under_way.set()
                    time.sleep(0.02)
            finally:
                gone.set()

        planner.answers["ProfileMemory"] = events
        child = start("profile a/b")
        assert under_way.wait(30)
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
        assert (child.returncode, out, err.strip()) == (code, "", said)
        assert gone.wait(5)


class TestBesideEstimates:
    def test_plan_and_estimate_show_it(self, run: Run, planner: FakePlanner) -> None:
        planner.answers["PlanJob"] = lambda request: replace(plan(Verdict.FITS), profile=PROFILE)
        planner.answers["EstimateMemory"] = lambda request: EstimateMemoryResponse(
            estimate=ESTIMATE, profile=PROFILE
        )
        for line in ("plan a/b --measure 30", "estimate a/b"):
            text = run(line).stdout
            assert text.index("Memory on nvidia-a100-40gb") < text.index("Measured on NVIDIA A100")
            assert "device used    6.68 GiB   6.18 GiB   -7.5%" in text
            assert json.loads(run(f"{line} --json").stdout)["profile"] == to_dict(PROFILE)

    def test_another_batch_size_is_not_compared(self, run: Run, planner: FakePlanner) -> None:
        other = replace(PROFILE, micro_batch_size=32)
        planner.answers["PlanJob"] = lambda request: replace(plan(Verdict.FITS), profile=other)
        text = run("plan a/b").stdout
        assert "batch 32" in text
        assert "off by" not in text

    def test_a_file_may_say_how_long_to_measure(
        self, run: Run, planner: FakePlanner, tmp_path: Path
    ) -> None:
        path = tmp_path / "job.yaml"
        path.write_text("model: a/b\nbatch_size: 3\nmeasurement_budget: 90s\n")
        run(f"plan -f {path} --timeout 10")
        assert planner.requests[0].measurement_budget == timedelta(seconds=90)
        assert 98 < planner.seconds_left[0] < 101
        details = bad_request(measurement_budget="too long")
        planner.fail("PlanJob", grpc.StatusCode.INVALID_ARGUMENT, details)
        assert f"  {path}: measurement_budget: too long" in run(f"plan -f {path}").stderr
        assert "  --measure: too long" in run(f"plan -f {path} --measure 1e6").stderr


class TestStored:
    def test_list(self, run: Run, planner: FakePlanner) -> None:
        lines = run("profiles list --gpu t4 --job d41d --limit 4").stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["profile", "p-5", "p-4", "p-3", "p-2"]
        assert "2026-01-31 08:15 UTC" in lines[1]
        assert {(r.gpu_type, r.job_digest) for r in planner.requests} == {("t4", "d41d")}
        data = json.loads(run("profiles list --limit 4 --json").stdout)["profiles"]
        assert [one["profile_id"] for one in data] == ["p-5", "p-4", "p-3", "p-2"]

    def test_an_empty_store(self, run: Run, planner: FakePlanner) -> None:
        planner.answers["ListProfiles"] = lambda request: ListProfilesResponse()
        assert json.loads(run("profiles list --json").stdout) == {"profiles": []}
        assert run("profiles export").stdout == ""

    def test_show(self, run: Run) -> None:
        text = run("profiles show p-9").stdout
        assert "Measured on NVIDIA A100-SXM4-40GB" in text
        assert "estimated" not in text
        data = json.loads(run("profiles show p-9 --json").stdout)
        assert from_dict(MeasuredProfile, data) == stored("p-9")

    def test_export_is_one_profile_a_line(self, run: Run, planner: FakePlanner) -> None:
        lines = run("profiles export").stdout.splitlines()
        found = [from_dict(MeasuredProfile, json.loads(line)) for line in lines]
        assert found == [replace(PROFILE, profile_id=f"p-{i}") for i in (5, 4, 3, 2, 1)]
        lines = run("profiles export --curves --gpu t4").stdout.splitlines()
        assert from_dict(MeasuredProfile, json.loads(lines[0])) == stored("p-5")
        assert planner.requests[-2].profile_id == "p-2"

    def test_a_name_that_is_not_there(self, run: Run, planner: FakePlanner) -> None:
        info = error_details_pb2.ErrorInfo(reason="UNKNOWN_NAME", metadata={"kind": "profile"})
        planner.fail("GetProfile", grpc.StatusCode.NOT_FOUND, info)
        result = run("profiles show p-9")
        assert result.exit_code == 2
        assert "`memplan profiles list`" in result.stderr

    def test_a_store_that_does_not_answer(self, run: Run, planner: FakePlanner) -> None:
        info = error_details_pb2.ErrorInfo(reason="NO_PROFILE_STORE")
        planner.fail("ListProfiles", grpc.StatusCode.UNAVAILABLE, info)
        assert run("profiles list").exit_code == 4


@pytest.mark.parametrize("columns", ["24", "40", "60"])
@pytest.mark.parametrize("line", ["profile a/b", "profiles list", "profiles show p-1"])
def test_narrow_terminals(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: str, line: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert max(map(len, run(line).stdout.splitlines())) <= int(columns)
