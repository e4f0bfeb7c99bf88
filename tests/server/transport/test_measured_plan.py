"""PlanJob with a measurement budget: what is measured, and what follows for the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from fake_gpu import MIB
from fake_nvml import Gpu, Nvml
from serving import SOON_S, Served, Starter, job, wait_until
from test_profile_memory import processes, profile, running
from test_profile_memory import request as profile_request

from memplan.v1 import estimate_pb2
from memplan.v1 import planner_pb2 as pb

H100 = "nvidia-h100-80gb"
FITS, DOES_NOT_FIT, UNCERTAIN = map(
    estimate_pb2.Verdict.Value, ("VERDICT_FITS", "VERDICT_DOES_NOT_FIT", "VERDICT_UNCERTAIN")
)


@pytest.fixture
def gpu() -> Gpu:
    return Gpu("GPU-1")


@pytest.fixture
def with_gpu(gpu: Gpu, start: Starter, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A server that finds one H100."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("memplan_server.profiling.setup.load_nvml", lambda: Nvml(gpu))
    monkeypatch.setattr("memplan_server.profiling.devices._torch_has_cuda", lambda: True)
    return start(measure="fake_gpu:measure")


def request(
    name: str = "ok",
    batch_size: int = 100,
    *,
    free_mib: int | None = None,
    gpu_type: str = H100,
    seconds: float | None = SOON_S,
    **fields: Any,
) -> Any:
    made = pb.PlanJobRequest(job=job(name, batch_size), **fields)
    target = made.gpus.add(gpu_type=gpu_type)
    if free_mib is not None:
        target.free_bytes = free_mib * MIB
    if seconds is not None:
        made.measurement_budget.FromMilliseconds(int(seconds * 1000))
    return made


def plan(served: Served, *args: Any, **fields: Any) -> Any:
    return served.call("PlanJob", request(*args, **fields))


def done(served: Served) -> float:
    """Profiles measured so far."""
    outcomes = ("done", "out_of_memory")
    return sum(served.metric(f'memplan_profiles_total{{outcome="{o}"}}') for o in outcomes)


def test_an_uncertain_verdict_is_decided_by_a_measurement(with_gpu: Served) -> None:
    # 102 MiB and the context are expected to fit, their upper bound does not
    unsure = plan(with_gpu, free_mib=860, seconds=None)
    assert unsure.placements[0].verdict == UNCERTAIN
    assert not unsure.measurement_notes
    found = plan(with_gpu, free_mib=860)
    (placement,) = found.placements
    assert placement.verdict == FITS
    assert placement.device_used_bytes == found.profile.device_used_bytes
    assert placement.spare_bytes == 860 * MIB - found.profile.device_used_bytes
    assert not placement.remedies
    for part in ("H100 80GB HBM3", "driver 595.1", "torch 2.0", "3 steps after 2"):
        assert part in placement.reason
        assert any(part in note for note in found.measurement_notes)
    assert found.profile.profile_id
    assert found.profile.memory_limit_bytes == 860 * MIB
    assert found.estimate == unsure.estimate


def test_what_runs_out_of_memory_is_planned_again(
    with_gpu: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan(with_gpu, free_mib=2000, seconds=None)
    assert before.placements[0].verdict == FITS
    monkeypatch.setenv("FAKE_GPU_SHARE", "20")
    found = plan(with_gpu, free_mib=2000)
    (placement,), (batch,) = found.placements, found.batch_sizes
    assert placement.verdict == DOES_NOT_FIT
    assert placement.missing_bytes > 0
    assert placement.spare_bytes == 0
    assert "ran out of memory" in placement.reason
    assert placement.remedies[0].micro_batch_size < 100
    # a second run showed that what is recommended now fits
    assert found.profile.micro_batch_size == batch.recommended_batch_size
    assert 8 <= batch.recommended_batch_size <= batch.max_batch_size < 63
    assert not found.profile.out_of_memory
    assert "Micro-batch 100 does not fit" in batch.reason
    assert done(with_gpu) == 2


def test_an_accumulation_plan_is_measured_and_corrected(
    with_gpu: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"global_batch_size": 4096, "free_mib": 2000}
    before = plan(with_gpu, **fields, seconds=None).accumulation
    confirmed = plan(with_gpu, **fields)
    assert confirmed.accumulation.micro_batch_size == before.micro_batch_size
    assert "fits: it took" in confirmed.accumulation.reason
    assert confirmed.profile.micro_batch_size == before.micro_batch_size
    assert confirmed.profile.job.loop.accumulation_steps == 2
    monkeypatch.setenv("FAKE_GPU_SHARE", "4")
    corrected = plan(with_gpu, "attention", **fields, data_parallel_size=2)
    accumulation = corrected.accumulation
    assert accumulation.micro_batch_size < before.micro_batch_size / 3
    samples = (accumulation.accumulation_steps - 1) * accumulation.micro_batch_size
    assert (samples + accumulation.last_micro_batch_size) * 2 == 4096
    assert "does not fit" in accumulation.reason
    assert corrected.profile.micro_batch_size == accumulation.micro_batch_size


def test_a_measurement_speaks_for_every_gpu_of_the_type(with_gpu: Served) -> None:
    wanted = request(free_mib=860)
    wanted.gpus.add(gpu_type=H100)
    wanted.gpus.add(gpu_type=H100, free_bytes=800 * MIB)
    wanted.gpus.add(gpu_type="nvidia-t4", free_bytes=600 * MIB)
    without = pb.PlanJobRequest()
    without.CopyFrom(wanted)
    without.ClearField("measurement_budget")
    before = with_gpu.call("PlanJob", without)
    found = with_gpu.call("PlanJob", wanted)
    assert [p.verdict for p in found.placements][:2] == [FITS, FITS]
    assert "Measured on" in found.placements[1].reason
    # 842 MiB were used, and with 800 the allocator might have given something back
    assert found.placements[2].verdict == DOES_NOT_FIT
    assert found.placements[3] == before.placements[3]


def test_what_was_measured_before_is_not_measured_again(with_gpu: Served) -> None:
    first = profile(with_gpu, batch_size=100)[-1].profile
    found = plan(with_gpu)
    assert found.profile.profile_id == first.profile_id
    assert f"Profile {first.profile_id}" in found.measurement_notes[0]
    assert done(with_gpu) == 1


def test_measured_plans_are_not_kept_as_answers(with_gpu: Served) -> None:
    for times in (1, 2):
        plan(with_gpu, "ok", 100 * times, free_mib=5000)
        plan(with_gpu, "ok", 100 * times, free_mib=5000)
    assert with_gpu.metric('memplan_cache_requests_total{cache="answer",result="hit"}') == 0
    assert done(with_gpu) == 2


def test_the_cpu_changes_no_verdict(start: Starter) -> None:
    served = start(measure="fake_gpu:measure")
    before = plan(served, free_mib=860, seconds=None)
    found = plan(served, free_mib=860)
    assert found.placements == before.placements
    assert found.batch_sizes == before.batch_sizes
    assert found.profile.device_type == pb.DEVICE_TYPE_CPU
    assert any("CPU" in note and "stay" in note for note in found.measurement_notes)
    assert any(f"{100 * MIB:,} bytes" in note for note in found.measurement_notes)


def test_another_gpu_type_changes_no_verdict(with_gpu: Served) -> None:
    before = plan(with_gpu, gpu_type="nvidia-t4", free_mib=300, seconds=None)
    found = plan(with_gpu, gpu_type="nvidia-t4", free_mib=300)
    assert found.placements == before.placements
    assert found.profile.gpu_type == H100
    assert any("not on nvidia-t4" in note for note in found.measurement_notes)


@pytest.mark.parametrize(
    ("name", "said"), [("crash", "exit code 3"), ("defect", "defect"), ("build-error", "built")]
)
def test_what_goes_wrong_is_said_and_fails_nothing(start: Starter, name: str, said: str) -> None:
    served = start(measure=f"fake_gpu:measure_{name.replace('-', '_')}")
    found = plan(served)
    assert found.placements[0].verdict == FITS
    assert not found.HasField("profile")
    (note,) = found.measurement_notes
    assert note.startswith("Micro-batch 100 was not measured: ")
    assert said in note
    assert "secret" not in note


def test_the_budget_bounds_measuring_and_waiting(start: Starter) -> None:
    before = processes()
    served = start(measure="fake_gpu:measure_hang")
    found = plan(served, seconds=1.5)
    assert "1.5 s" in found.measurement_notes[0]
    wait_until(lambda: processes() <= before)
    with running(served, time_limit_s=100):
        found = plan(served, seconds=1)
        assert "waiting for a device included" in found.measurement_notes[0]
        assert found.placements[0].verdict == FITS


def test_a_full_queue_is_said(start: Starter) -> None:
    served = start(measure="fake_gpu:measure_hang", profile_queue_length=1)
    with running(served, time_limit_s=100), running_behind(served):
        assert "1 profiles wait already" in plan(served).measurement_notes[0]


@contextmanager
def running_behind(served: Served) -> Iterator[None]:
    """A profile that waits."""
    stream = served.stub.ProfileMemory(profile_request(), timeout=SOON_S)
    assert next(stream).progress.stage == pb.PROFILE_STAGE_QUEUED
    yield
    stream.cancel()


def test_a_gpu_that_others_use_is_not_waited_for(with_gpu: Served, gpu: Gpu) -> None:
    gpu.processes = [77]
    found = plan(with_gpu)
    assert "is used by process 77" in found.measurement_notes[0]
    assert not found.HasField("profile")


def test_who_leaves_while_it_is_measured_stops_it(start: Starter) -> None:
    before = processes()
    served = start(measure="fake_gpu:measure_hang")
    call = served.stub.PlanJob.future(request(), timeout=SOON_S)
    wait_until(lambda: processes() > before)
    call.cancel()
    wait_until(lambda: processes() <= before)


def test_profiles_and_measured_plans_share_their_places(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memplan_server.app.PROFILES_THAT_RUN", 0)
    served = start(measure="fake_gpu:measure_hang", profile_queue_length=1)
    with running(served):
        assert "as many profiles under way" in plan(served).measurement_notes[0]


def test_budgets_that_make_no_sense(fake: Served) -> None:
    for seconds in (0, -1, 601):
        found = fake.refusal("PlanJob", request(seconds=seconds))
        assert found.code is grpc.StatusCode.INVALID_ARGUMENT
        assert found.fields == {"measurement_budget"}
