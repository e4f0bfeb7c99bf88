"""Profiles on GPUs that NVML is made to tell of; what would run there is `fake_measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_measure
import grpc
import pytest
from fake_nvml import Gpu, Nvml
from serving import SOON_S, Served, Starter, wait_until
from test_profile_memory import profile, refusal, request, running

from memplan.v1 import planner_pb2 as pb

CODE = grpc.StatusCode
MIB = 1 << 20
H100 = "nvidia-h100-80gb"


@pytest.fixture
def gpu() -> Gpu:
    return Gpu("GPU-1")


@pytest.fixture
def with_gpu(gpu: Gpu, start: Starter, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A server that finds one H100."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("memplan_server.profiling.setup.load_nvml", lambda: Nvml(gpu))
    monkeypatch.setattr("memplan_server.profiling.devices._torch_has_cuda", lambda: True)
    return start(node_name="node-1")


def test_a_gpu_is_preferred_and_tells_times_and_context(with_gpu: Served) -> None:
    found = profile(with_gpu, batch_size=600)[-1].profile
    assert found.device_type == pb.DEVICE_TYPE_CUDA
    assert (found.device_name, found.gpu_type) == ("NVIDIA H100 80GB HBM3", H100)
    assert found.library_versions["visible"] == "GPU-1"
    assert found.library_versions["driver"] == "595.1"
    assert found.step_time.ToMilliseconds() == 600
    assert found.step_time_p90.ToMilliseconds() == 1200
    assert found.samples_per_second == pytest.approx(1000)
    assert (found.context_before_bytes, found.context_after_bytes) == (400 * MIB, 500 * MIB)
    assert found.device_used_bytes == 600 * MIB
    with_gpu.wait_for(f'memplan_prediction_ratio_count{{gpu_type="{H100}"}}')


def test_the_cpu_may_be_asked_for_all_the_same(with_gpu: Served) -> None:
    found = profile(with_gpu, device_type=pb.DEVICE_TYPE_CPU)[-1].profile
    assert found.device_type == pb.DEVICE_TYPE_CPU
    assert found.library_versions["visible"] == ""
    assert profile(with_gpu, gpu_type=H100)[-1].profile.gpu_type == H100
    assert refusal(with_gpu, gpu_type="nvidia-t4").code is CODE.FAILED_PRECONDITION


def test_out_of_memory_is_a_result(with_gpu: Served) -> None:
    found = profile(with_gpu, batch_size=fake_measure.ROOM + 1)[-1].profile
    assert found.out_of_memory
    assert found.requested_bytes == 7
    assert found.samples_per_second == 0
    assert with_gpu.metric('memplan_profiles_total{outcome="out_of_memory"}') == 1


@pytest.mark.parametrize(
    "busy", [{"processes": [77]}, {"used": 3000 * MIB}, {"compute_mode": 2}], ids=str
)
def test_a_gpu_that_others_use_is_not_disturbed(
    with_gpu: Served, gpu: Gpu, busy: dict[str, Any]
) -> None:
    for name, value in busy.items():
        setattr(gpu, name, value)
    found = refusal(with_gpu)
    assert found.code is CODE.RESOURCE_EXHAUSTED
    assert "H100" in found.message
    assert found.details["RetryInfo"].retry_delay.seconds > 0


def test_one_may_wait_for_a_gpu(with_gpu: Served, gpu: Gpu) -> None:
    gpu.processes = [77]
    stream = with_gpu.stub.ProfileMemory(request(wait_for_gpu=True), timeout=SOON_S)
    assert next(stream).progress.stage == pb.PROFILE_STAGE_QUEUED
    gpu.processes = []
    assert list(stream)[-1].HasField("profile")


def test_who_does_not_wait_is_refused_although_somebody_does(with_gpu: Served, gpu: Gpu) -> None:
    gpu.processes = [77]
    stream = with_gpu.stub.ProfileMemory(request(wait_for_gpu=True), timeout=SOON_S)
    next(stream)
    assert refusal(with_gpu).code is CODE.RESOURCE_EXHAUSTED
    stream.cancel()


def test_who_waits_for_a_gpu_may_leave(with_gpu: Served, gpu: Gpu) -> None:
    gpu.processes = [77]
    stream = with_gpu.stub.ProfileMemory(request(wait_for_gpu=True), timeout=SOON_S)
    next(stream)
    stream.cancel()
    with_gpu.wait_for('memplan_profiles_total{outcome="cancelled"}')
    gpu.processes = []
    assert profile(with_gpu)[-1].HasField("profile")


def test_who_came_meanwhile_is_told_of(
    with_gpu: Served, gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TASKS_GATE", str(tmp_path / "gate"))
    gpu.virtual = True
    with running(with_gpu, "gated") as stream:
        gpu.processes = [77]
        (tmp_path / "gate").touch()
        notes = list(stream)[-1].profile.notes
    assert any("Process 77 used the GPU meanwhile" in note for note in notes)
    assert any("virtual GPU" in note for note in notes)


def test_batch_sizes_are_found_in_few_runs(with_gpu: Served) -> None:
    found = profile(with_gpu, batch_size=8, find_batch_size=True, time_limit_s=100)[-1].profile
    points = list(found.throughput)
    sizes = [point.micro_batch_size for point in points]
    assert sizes == sorted(set(sizes))
    assert len(sizes) <= 11
    assert 8 in sizes
    assert fake_measure.ROOM * 0.95 <= found.largest_micro_batch_size <= fake_measure.ROOM
    assert all(p.out_of_memory == (p.micro_batch_size > fake_measure.ROOM) for p in points)
    assert found.fastest_micro_batch_size >= fake_measure.KNEE
    assert found.micro_batch_size == 8
    assert found.peak_allocated_bytes == 8 * MIB


def states(served: Served) -> dict[str, float]:
    """What the metrics say of the one H100."""
    labels = f'device_type="cuda",gpu_type="{H100}",node="node-1",state='
    sample = f"memplan_profile_devices{{{labels}"
    return {s: served.metric(f'{sample}"{s}"}}') for s in ("idle", "busy", "occupied")}


def test_what_devices_do_is_seen(
    with_gpu: Served, gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TASKS_GATE", str(tmp_path / "gate"))
    assert states(with_gpu) == {"idle": 1, "busy": 0, "occupied": 0}
    with running(with_gpu, "gated") as stream:
        gpu.processes = [77]  # its own process, as NVML sees it
        assert states(with_gpu) == {"idle": 0, "busy": 1, "occupied": 0}
        (tmp_path / "gate").touch()
        list(stream)
    wait_until(lambda: states(with_gpu) == {"idle": 0, "busy": 0, "occupied": 1})
    cpu = 'memplan_profile_devices{device_type="cpu",gpu_type="",node="node-1",state="idle"}'
    assert with_gpu.metric(cpu) == 1
