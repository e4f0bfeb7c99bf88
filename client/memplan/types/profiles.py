"""Measured profiles: really running a job, what was seen, and what is stored of it.

Counterpart of the profile messages of `proto/memplan/v1/planner.proto`: same names, same meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from memplan.types.estimate import Phase
from memplan.types.job import TrainingJob

__all__ = [
    "DeviceType",
    "GetProfileRequest",
    "GetProfileResponse",
    "ListProfilesRequest",
    "ListProfilesResponse",
    "MeasuredProfile",
    "MemoryPoint",
    "PhasePeak",
    "Prediction",
    "ProfileMemoryRequest",
    "ProfileMemoryResponse",
    "ProfileProgress",
    "ProfileStage",
    "ThroughputPoint",
]


class DeviceType(StrEnum):
    """Kinds of devices to measure on."""

    UNSPECIFIED = "unspecified"
    """Not said."""
    CUDA = "cuda"
    """A CUDA GPU: memory and time are those of the GPU."""
    CPU = "cpu"
    """The CPU: what tensors hold is executed for real at a small batch size and replayed through
    the allocator; nothing is learned of kernels, workspaces, context or time on a GPU."""


class ProfileStage(StrEnum):
    """Stages of a profile."""

    UNSPECIFIED = "unspecified"
    """Not known."""
    QUEUED = "queued"
    """Waiting for a device."""
    BUILDING = "building"
    """The model is made."""
    WARMING_UP = "warming-up"
    """Steps that do not count."""
    MEASURING = "measuring"
    """Steps that count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhasePeak:
    """Peak in one phase of the training step."""

    phase: Phase = Phase.UNSPECIFIED
    """The phase."""
    peak_allocated_bytes: int = 0
    """Peak allocated bytes in it."""
    peak_reserved_bytes: int = 0
    """Peak reserved bytes in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPoint:
    """Memory at one moment of a run."""

    event: int = 0
    """Allocations and frees up to then."""
    phase: Phase = Phase.UNSPECIFIED
    """The phase it is in."""
    step: int = 0
    """Training step, from 0."""
    allocated_bytes: int = 0
    """Allocated bytes."""
    reserved_bytes: int = 0
    """Reserved bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThroughputPoint:
    """What one batch size gave."""

    micro_batch_size: int = 0
    """The micro-batch size."""
    samples_per_second: float = 0.0
    """Samples per second. 0 where it ran out of memory."""
    peak_reserved_bytes: int = 0
    """Peak reserved bytes."""
    out_of_memory: bool = False
    """Whether it ran out of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """An estimate kept with the measurement of the same job at the same micro-batch size and on the
    same GPU type."""

    peak_allocated_bytes: int = 0
    """Expected peak allocated bytes."""
    peak_reserved_bytes: int = 0
    """Expected peak reserved bytes."""
    context_bytes: int = 0
    """Expected bytes of the CUDA context."""
    family: str = ""
    """The family of jobs whose measurements its bounds rest on."""
    version: str = ""
    """Names the code and the library versions that it comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredProfile:
    """What was measured. Bytes and times of the GPU are 0 or unset where it was measured on the
    CPU."""

    device_name: str = ""
    """Name of the device as the driver gives it; the processor's for the CPU."""
    peak_allocated_bytes: int = 0
    """Peak allocated bytes (torch.cuda.max_memory_allocated). On the CPU: of the recorded
    allocations replayed through the model of the CUDA caching allocator."""
    peak_reserved_bytes: int = 0
    """Peak reserved bytes (torch.cuda.max_memory_reserved). On the CPU: of that replay."""
    device_used_bytes: int = 0
    """Device-used bytes after the last step: what the driver counts for the process."""
    out_of_memory: bool = False
    """Whether it ran out of memory: the job needs more than memory_limit_bytes."""
    memory_limit_bytes: int = 0
    """Bytes it was allowed."""
    step_count: int = 0
    """Steps measured."""
    step_time: timedelta | None = None
    """Median time of a step."""
    library_versions: Mapping[str, str] = field(default_factory=dict)
    """Driver and library versions."""
    device_type: DeviceType = DeviceType.UNSPECIFIED
    """What it was measured on."""
    gpu_type: str = ""
    """Name of the GPU in the catalog; empty where it is not there."""
    profile_id: str = ""
    """Names this profile in the store; empty where it was not stored."""
    job: TrainingJob = field(default_factory=TrainingJob)
    """The job that was measured, with every default resolved."""
    job_digest: str = ""
    """Digest of the job: equal jobs have equal digests."""
    create_time: datetime | None = None
    """When it was measured."""
    warmup_step_count: int = 0
    """Steps run before those measured."""
    micro_batch_size: int = 0
    """Micro-batch size that was measured. On the CPU it may be smaller than the job's."""
    context_before_bytes: int = 0
    """Device-used less reserved bytes before the first step: context and driver."""
    context_after_bytes: int = 0
    """The same after the last step: kernels are loaded when they are first used."""
    step_time_p10: timedelta | None = None
    """Tenth percentile of the time of a step."""
    step_time_p90: timedelta | None = None
    """Ninetieth percentile of the time of a step."""
    samples_per_second: float = 0.0
    """Samples trained per second, accumulation included."""
    phases: tuple[PhasePeak, ...] = ()
    """Peak by phase of the step."""
    curve: tuple[MemoryPoint, ...] = ()
    """Memory over the run, at most 512 points."""
    throughput: tuple[ThroughputPoint, ...] = ()
    """Where find_batch_size was asked for: what each batch size gave, smallest first."""
    largest_micro_batch_size: int = 0
    """Of those, the largest that ran. 0 where it was not asked for."""
    fastest_micro_batch_size: int = 0
    """Of those, the one with the most samples per second. 0 where it was not asked for."""
    notes: tuple[str, ...] = ()
    """What it does and does not show, and what was done otherwise than described, in sentences."""
    requested_bytes: int = 0
    """Bytes of the allocation that did not fit. 0 where all did or it is not known."""
    host: str = ""
    """Name of the host that measured."""
    shared: bool = False
    """Whether the GPU may have been shared meanwhile: other processes, MPS, a virtual GPU."""
    prediction: Prediction | None = None
    """What was estimated for what was measured. Not set for the CPU and for GPUs that are not in
    the catalog."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileProgress:
    """Progress of a profile."""

    stage: ProfileStage = ProfileStage.UNSPECIFIED
    """What it is at."""
    queue_position: int = 0
    """Jobs before this one in the queue."""
    step: int = 0
    """Steps done."""
    step_count: int = 0
    """Steps to do."""
    peak_reserved_bytes: int = 0
    """Peak reserved bytes so far."""
    expected_wait: timedelta | None = None
    """Time it will likely have to wait still, from the time limits of the jobs before it."""
    micro_batch_size: int = 0
    """Micro-batch size that is measured now."""
    peak_allocated_bytes: int = 0
    """Peak allocated bytes so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileMemoryRequest:
    """Request of ProfileMemory."""

    job: TrainingJob = field(default_factory=TrainingJob)
    """The job. Required."""
    step_count: int = 0
    """Steps to measure after warm-up. Default 3. 1 to 100."""
    memory_limit_bytes: int = 0
    """Memory the job may take, to imitate a smaller GPU. Default: all that is free."""
    time_limit: timedelta | None = None
    """Longest time to spend once it runs. Default 60 s."""
    device_type: DeviceType = DeviceType.UNSPECIFIED
    """What to measure on. Default: a CUDA GPU where the server or one of its profilers has one,
    else the CPU."""
    gpu_type: str = ""
    """Only on a GPU of this type. Default: any."""
    warmup_step_count: int = 0
    """Steps that do not count, run first. Default 2. 1 to 100."""
    wait_for_gpu: bool = False
    """Wait in the queue until a GPU that others use is free. Default: refuse at once
    (RESOURCE_EXHAUSTED)."""
    find_batch_size: bool = False
    """Measure other batch sizes too: the largest that runs, and the fastest. Default: only the
    job's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileMemoryResponse:
    """Response of ProfileMemory: one event of the stream."""

    progress: ProfileProgress | None = None
    """It goes on."""
    profile: MeasuredProfile | None = None
    """It is done: the last message of the stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GetProfileRequest:
    """Request of GetProfile."""

    profile_id: str = ""
    """Name of the profile. Required."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GetProfileResponse:
    """Response of GetProfile."""

    profile: MeasuredProfile = field(default_factory=MeasuredProfile)
    """The profile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListProfilesRequest:
    """Request of ListProfiles."""

    page_size: int = 0
    """At most so many; fewer where they are large. Default 50, at most 1,000."""
    page_token: str = ""
    """next_page_token of the page before. Default: the first page."""
    gpu_type: str = ""
    """Only of this GPU type, by name or alias. Default: all."""
    job_digest: str = ""
    """Only of the job with this digest. Default: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListProfilesResponse:
    """Response of ListProfiles."""

    profiles: tuple[MeasuredProfile, ...] = ()
    """The profiles, newest first, without their curves."""
    next_page_token: str = ""
    """Token of the next page; empty on the last one."""
