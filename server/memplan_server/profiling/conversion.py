"""From what the measuring process gives to the contract's messages."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from memplan.types import (
    DeviceType,
    MeasuredProfile,
    ProfileMemoryResponse,
    ProfileProgress,
    ProfileStage,
    TrainingJob,
)
from memplan_server.jobs import job_digest
from memplan_server.measure.measurement import Gpu, StepSeconds
from memplan_server.measure.profiled import Profiled
from memplan_server.measure.request import Progress
from memplan_server.profiling.devices import Device
from memplan_server.profiling.queue import Waiting

__all__ = ["measured_profile", "progress", "queued", "samples_per_second"]


def queued(waiting: Waiting | None = None) -> ProfileMemoryResponse:
    """It waits: for those before it, or for a GPU that others use."""
    return ProfileMemoryResponse(
        progress=ProfileProgress(
            stage=ProfileStage.QUEUED,
            queue_position=waiting.position if waiting else 0,
            expected_wait=timedelta(seconds=round(waiting.expected_s, 3)) if waiting else None,
        )
    )


def progress(made: Progress) -> ProfileMemoryResponse:
    """It runs."""
    return ProfileMemoryResponse(
        progress=ProfileProgress(
            stage=made.stage,
            step=made.step,
            step_count=made.step_count,
            micro_batch_size=made.micro_batch_size,
            peak_allocated_bytes=made.peak_allocated_bytes,
            peak_reserved_bytes=made.peak_reserved_bytes,
        )
    )


def measured_profile(
    job: TrainingJob,
    device: Device,
    found: Profiled,
    notes: tuple[str, ...] = (),
    *,
    shared: bool = False,
) -> MeasuredProfile:
    """The profile of a normalised job. Times and driver figures are there for CUDA only."""
    measured = found.measurement
    failed = measured.out_of_memory
    return MeasuredProfile(
        **_times(job, found),
        device_name=device.name,
        device_type=device.type,
        gpu_type=device.gpu_type,
        host=socket.gethostname(),
        create_time=datetime.now(UTC),
        job=replace(job, micro_batch_size=found.micro_batch_size),
        job_digest=job_digest(job),
        micro_batch_size=found.micro_batch_size,
        warmup_step_count=found.warmup_step_count,
        step_count=found.step_count,
        memory_limit_bytes=found.memory_limit_bytes,
        peak_allocated_bytes=measured.peak_allocated_bytes,
        peak_reserved_bytes=measured.peak_reserved_bytes or 0,
        device_used_bytes=measured.device_used_bytes or 0,
        context_before_bytes=measured.context_before_bytes or 0,
        context_after_bytes=measured.context_after_bytes or 0,
        out_of_memory=failed is not None,
        requested_bytes=(failed.requested_bytes or 0) if failed is not None else 0,
        library_versions=_versions(measured.library_versions, measured.gpu),
        phases=found.phases,
        curve=found.curve,
        notes=(*found.notes, *notes),
        shared=shared,
    )


def samples_per_second(job: TrainingJob, found: Profiled) -> float:
    """Samples trained per second, by the median step; 0 where no step was timed."""
    times = found.measurement.step_seconds
    if times is None or not times.median or found.measurement.out_of_memory is not None:
        return 0.0
    return found.micro_batch_size * max(1, job.loop.accumulation_steps) / times.median


def _times(job: TrainingJob, found: Profiled) -> dict[str, Any]:
    times: StepSeconds | None = found.measurement.step_seconds
    if times is None or found.measurement.device_type != DeviceType.CUDA.value:
        return {}
    return {
        "step_time": timedelta(seconds=times.median),
        "step_time_p10": timedelta(seconds=times.p10),
        "step_time_p90": timedelta(seconds=times.p90),
        "samples_per_second": samples_per_second(job, found),
    }


def _versions(libraries: Mapping[str, str], gpu: Gpu) -> dict[str, str]:
    return {**libraries, **({"driver": gpu.driver_version} if gpu.driver_version else {})}
