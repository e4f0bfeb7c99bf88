"""What stored profiles teach a running server, and that every answer knows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import Gpu, Nvml
from serving import Served, Starter, estimate, job, wait_until
from test_profile_memory import profile

from memplan.types import (
    CatalogModel,
    DeviceType,
    MeasuredProfile,
    Model,
    Prediction,
    TrainingJob,
)
from memplan.v1 import planner_pb2 as pb
from memplan_server.planning.uncertainty import slack_bytes
from memplan_server.profiles.database import Database
from memplan_server.profiles.store import SqlProfileStore
from memplan_server.timelines import estimation_version

MIB = 1 << 20
T4, H100 = "nvidia-t4", "nvidia-h100-80gb"
SHIPPED, LEARNED = 141 * MIB, 200 * MIB
USED_MIB = 100
"""What the jobs of these profiles are estimated to reserve."""


@contextmanager
def profiles_of(data_dir: Path) -> Iterator[SqlProfileStore]:
    """The profiles of a server, opened beside it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    store = SqlProfileStore(Database.of_file(data_dir), most=10_000)
    try:
        yield store
    finally:
        store.close()


def measured(index: int, *, above_mib: int = 0, **fields: Any) -> MeasuredProfile:
    """A job of its own model on a T4 with a context of 200 MiB."""
    described = TrainingJob(
        model=Model(catalog=CatalogModel(name=f"made/up{index}")), micro_batch_size=1
    )
    plain = MeasuredProfile(
        device_type=DeviceType.CUDA,
        device_name="Tesla T4",
        gpu_type=T4,
        job=described,
        job_digest=f"{index:064}",
        micro_batch_size=1,
        create_time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=index),
        device_used_bytes=(USED_MIB + above_mib) * MIB + LEARNED,
        peak_reserved_bytes=(USED_MIB + above_mib) * MIB,
        context_after_bytes=LEARNED,
        library_versions={"torch": "2.11.0", "driver": "580.1"},
        prediction=Prediction(
            peak_reserved_bytes=USED_MIB * MIB, family="dense", version=estimation_version()
        ),
    )
    return replace(plain, **fields)


def gpu_type(served: Served, name: str = T4) -> Any:
    found = served.call("ListGpuTypes", pb.ListGpuTypesRequest(filter=name)).gpu_types
    return next(g for g in found if g.name == name)


def estimated(served: Served, name: str = T4, batch_size: int = 100) -> Any:
    wanted = estimate("ok", batch_size)
    wanted.gpu_type = name
    return served.call("EstimateMemory", wanted).estimate


def plan(served: Served) -> Any:
    wanted = pb.PlanJobRequest(job=job("ok", 100), global_batch_size=10_000)
    wanted.gpus.add(gpu_type=T4, free_bytes=2000 * MIB)
    return served.call("PlanJob", wanted)


def test_every_answer_has_the_learned_context(start: Starter, data_dir: Path) -> None:
    before = start(data_dir=data_dir / "other")
    with profiles_of(data_dir) as store:
        for index in range(3):
            store.add(measured(index))
    after = start(data_dir=data_dir)
    assert gpu_type(before).context_bytes == SHIPPED
    found = gpu_type(after)
    assert found.context_bytes == LEARNED
    source = found.sources["context_bytes"]
    assert source.startswith("measured: median of 3 models, from 3 profiles")
    assert "driver 580.1; torch 2.11.0" in source
    assert gpu_type(after, H100) == gpu_type(before, H100)

    old, new = estimated(before), estimated(after)
    assert new.breakdown.context_bytes == LEARNED
    assert new.device_used_bytes - old.device_used_bytes == LEARNED - SHIPPED
    assert new.upper_bound_bytes - old.upper_bound_bytes == LEARNED - SHIPPED
    assert estimated(after, H100) == estimated(before, H100)

    one, other = plan(before), plan(after)
    assert other.placements[0].device_used_bytes > one.placements[0].device_used_bytes
    assert other.placements[0].spare_bytes < one.placements[0].spare_bytes
    assert other.batch_sizes[0].max_batch_size < one.batch_sizes[0].max_batch_size
    assert other.accumulation.max_micro_batch_size < one.accumulation.max_micro_batch_size
    wanted = pb.PlanAccumulationRequest(job=job("ok", 0), global_batch_size=10_000)
    wanted.gpu.gpu_type, wanted.gpu.free_bytes = T4, 2000 * MIB
    accumulated = after.call("PlanAccumulation", wanted).accumulation
    assert accumulated.max_micro_batch_size == other.accumulation.max_micro_batch_size
    batches = pb.RecommendBatchSizeRequest(job=job("ok", 0), gpus=[wanted.gpu])
    (batch,) = after.call("RecommendBatchSize", batches).batch_sizes
    assert batch.max_batch_size == other.batch_sizes[0].max_batch_size


def test_kept_answers_know_what_was_learned_meanwhile(fake: Served, data_dir: Path) -> None:
    bounds = [estimated(fake).upper_bound_bytes]
    shipped, sizes = gpu_type(fake), plan(fake).batch_sizes[0]
    with profiles_of(data_dir) as beside:
        for index in range(3):
            beside.add(measured(index))
        wait_until(lambda: gpu_type(fake).context_bytes == LEARNED)
        bounds.append(estimated(fake).upper_bound_bytes)
        assert plan(fake).batch_sizes[0].max_batch_size < sizes.max_batch_size
        # one job that took far more widens the bounds of its family on this GPU type only
        on_h100 = estimated(fake, H100)
        beside.add(measured(7, above_mib=150))
        wait_until(lambda: estimated(fake).upper_bound_bytes > bounds[-1])
    found = estimated(fake)
    # 110 MiB beyond the slack, where 110 MiB could be wrong; its own tensors fill their segments
    unsure = found.peak_reserved_bytes // 10
    assert found.upper_bound_bytes == found.device_used_bytes + slack_bytes() + unsure
    assert estimated(fake, H100) == on_h100
    assert shipped.context_bytes == SHIPPED


def test_many_profiles_narrow_the_bounds(start: Starter, data_dir: Path) -> None:
    before = start(data_dir=data_dir / "other")
    with profiles_of(data_dir) as store:
        for index in range(20):
            store.add(measured(index))
    after = start(data_dir=data_dir)
    wide, narrow = estimated(before, batch_size=5000), estimated(after, batch_size=5000)
    assert wide.upper_bound_bytes < narrow.upper_bound_bytes  # at 99 %, only the context changed
    at_95 = estimate("ok", 5000)
    at_95.gpu_type, at_95.confidence = T4, 0.95
    wide, narrow = (s.call("EstimateMemory", at_95).estimate for s in (before, after))
    assert narrow.confidence == 0.95
    assert narrow.upper_bound_bytes - narrow.device_used_bytes == slack_bytes()
    assert wide.upper_bound_bytes - wide.device_used_bytes > slack_bytes() + 10 * MIB


@pytest.mark.parametrize(
    "fields",
    [
        {"out_of_memory": True},
        {"shared": True},
        {"memory_limit_bytes": 4 << 30},
        {"prediction": None},
    ],
    ids=str,
)
def test_runs_that_say_nothing_teach_no_residuals(
    start: Starter, data_dir: Path, fields: dict[str, Any]
) -> None:
    with profiles_of(data_dir) as store:
        for index in range(2):
            store.add(measured(index, above_mib=900, **fields))
    served = start(data_dir=data_dir)
    found = estimated(served)
    assert found.breakdown.context_bytes == SHIPPED  # two models are too few for that
    assert found.upper_bound_bytes < found.device_used_bytes + 50 * MIB


def test_what_is_measured_here_is_learned_from(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("memplan_server.profiling.setup.load_nvml", lambda: Nvml(Gpu("GPU-1")))
    monkeypatch.setattr("memplan_server.profiling.devices._torch_has_cuda", lambda: True)
    monkeypatch.setenv("FAKE_GPU_SHARE", "3")
    served = start(measure="fake_gpu:measure")
    before = estimated(served, H100)
    found = profile(served, batch_size=100)[-1].profile
    assert found.prediction.peak_reserved_bytes == before.peak_reserved_bytes
    assert found.prediction.peak_allocated_bytes == before.peak_allocated_bytes
    assert found.prediction.context_bytes == before.breakdown.context_bytes
    assert found.prediction.family == "dense"
    assert found.prediction.version == estimation_version()
    stored = served.call("GetProfile", pb.GetProfileRequest(profile_id=found.profile_id)).profile
    assert stored.prediction == found.prediction
    after = estimated(served, H100)
    assert after.upper_bound_bytes >= found.device_used_bytes > before.upper_bound_bytes
    on_cpu = profile(served, device_type=pb.DEVICE_TYPE_CPU)[-1].profile
    assert not on_cpu.HasField("prediction")
