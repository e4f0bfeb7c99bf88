"""The service.

Counterpart of `proto/memplan/v1/planner.proto`: same names, same meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from memplan.types.estimate import (
    AccumulationPlan,
    BatchSizeRecommendation,
    MemoryEstimate,
    Placement,
)
from memplan.types.gpus import GpuTarget, GpuType
from memplan.types.job import TrainingJob
from memplan.types.profiles import MeasuredProfile

__all__ = [
    "EstimateMemoryRequest",
    "EstimateMemoryResponse",
    "ListGpuTypesRequest",
    "ListGpuTypesResponse",
    "ListModelsRequest",
    "ListModelsResponse",
    "ModelInfo",
    "PlanAccumulationRequest",
    "PlanAccumulationResponse",
    "PlanJobRequest",
    "PlanJobResponse",
    "RecommendBatchSizeRequest",
    "RecommendBatchSizeResponse",
    "Scheduler",
]


class Scheduler(StrEnum):
    """Schedulers whose requests can be written."""

    UNSPECIFIED = "unspecified"
    """None."""
    SLURM = "slurm"
    """Slurm: lines of a batch script."""
    KUBERNETES = "kubernetes"
    """Kubernetes: a patch of a Pod, with node affinity on the labels of GPU Feature Discovery."""
    DRA = "dra"
    """Kubernetes, dynamic resource allocation: a ResourceClaimTemplate of resource.k8s.io/v1, and a
    patch of the Pod that uses it."""
    KUEUE = "kueue"
    """Kueue: a suspended Job for a queue."""
    KAI = "kai"
    """KAI Scheduler: a patch of a Pod that takes part of a GPU."""
    HAMI = "hami"
    """HAMi: a patch of a Pod that takes part of a GPU."""
    VOLCANO = "volcano"
    """Volcano: a patch of a Pod that takes part of a GPU."""
    HTCONDOR = "htcondor"
    """HTCondor: lines of a submit description."""
    RAY = "ray"
    """Ray: options of a remote function or actor, as Python."""
    SKYPILOT = "skypilot"
    """SkyPilot: fields of a task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateMemoryRequest:
    """Request of EstimateMemory."""

    job: TrainingJob = field(default_factory=TrainingJob)
    """The job. Required."""
    gpu_type: str = ""
    """Name or alias of the GPU type. Default: nvidia-a100-80gb, stated among the assumptions."""
    confidence: float = 0.0
    """Confidence that each bound shall have. Default 0.99. In [0.5, 0.99]: for more there are not
    enough measurements. The estimate states the one it holds for, which is not below this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateMemoryResponse:
    """Response of EstimateMemory."""

    estimate: MemoryEstimate = field(default_factory=MemoryEstimate)
    """The estimate."""
    profile: MeasuredProfile | None = None
    """The newest profile of the same job at the same micro-batch size on this GPU type, without its
    curve; where there is none, on a CPU. One that went to its end comes before one that ran out of
    memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecommendBatchSizeRequest:
    """Request of RecommendBatchSize."""

    job: TrainingJob = field(default_factory=TrainingJob)
    """The job; its micro_batch_size does not matter and may be 0. Required."""
    gpus: tuple[GpuTarget, ...] = ()
    """The GPUs asked about. Default: every type of the catalog. At most 256."""
    headroom_fraction: float | None = None
    """Share of the capacity that the recommended batch leaves free. Default 0.05. In [0, 0.9]."""
    multiple_of: int = 0
    """Round the recommended batch down to a multiple of this. Default: 8 where the batch is at
    least 8 (tensor cores), else 1. At most 4,096."""
    max_batch_size: int = 0
    """No batch above this. Default and limit 2^24."""
    confidence: float = 0.0
    """Confidence of the upper bound that fits for a recommended batch. Default 0.99. In
    [0.5, 0.99]: for more there are not enough measurements. Answers state the one they hold for,
    which is not below this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecommendBatchSizeResponse:
    """Response of RecommendBatchSize."""

    batch_sizes: tuple[BatchSizeRecommendation, ...] = ()
    """One for each GPU asked about, in that order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanAccumulationRequest:
    """Request of PlanAccumulation."""

    job: TrainingJob = field(default_factory=TrainingJob)
    """The job; its micro_batch_size, where given, is the largest that may be used. Required."""
    gpu: GpuTarget = field(default_factory=GpuTarget)
    """The GPU. Required."""
    global_batch_size: int = 0
    """Samples per optimizer step over all ranks. Required, 1 to 2^40; a multiple of
    data_parallel_size."""
    data_parallel_size: int = 0
    """Ranks. Default 1. At most 2^20."""
    headroom_fraction: float | None = None
    """Share of the capacity to leave free. Default 0.05. In [0, 0.9]."""
    confidence: float = 0.0
    """Confidence of the upper bound that fits for the micro-batches of the plan. Default 0.99. In
    [0.5, 0.99]: for more there are not enough measurements. The plan states the one it holds for,
    which is not below this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanAccumulationResponse:
    """Response of PlanAccumulation."""

    accumulation: AccumulationPlan = field(default_factory=AccumulationPlan)
    """The plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanJobRequest:
    """Request of PlanJob."""

    job: TrainingJob = field(default_factory=TrainingJob)
    """The job. Required."""
    gpus: tuple[GpuTarget, ...] = ()
    """The GPUs asked about. Default: every type of the catalog except MIG profiles. The estimate
    and the accumulation plan are for the first one. At most 256."""
    global_batch_size: int = 0
    """Samples per optimizer step over all ranks, reached with the largest micro-batches that fit.
    Default: no accumulation plan. A multiple of data_parallel_size, at most 2^40."""
    data_parallel_size: int = 0
    """Ranks. Default 1. At most 2^20."""
    headroom_fraction: float | None = None
    """Share of the capacity that recommended batch sizes leave free. Default 0.05. In [0, 0.9]."""
    confidence: float = 0.0
    """Confidence of the bounds, on which verdicts, recommended batches and remedies rest. Default
    0.99. In [0.5, 0.99]: for more there are not enough measurements. Answers state the one they
    hold for, which is not below this."""
    measurement_budget: timedelta | None = None
    """Longest time, waiting for a device included, that may be spent on measuring the planned
    micro-batches: those of the accumulation plan, else the job's, or the recommended ones where the
    job's do not fit. Comes on top of the time that a call may take on the server. Default: nothing
    is measured."""
    scheduler: Scheduler = Scheduler.UNSPECIFIED
    """Scheduler in whose own words the answer shall say what to ask for. Default: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanJobResponse:
    """Response of PlanJob."""

    estimate: MemoryEstimate = field(default_factory=MemoryEstimate)
    """The estimate on the first GPU."""
    batch_sizes: tuple[BatchSizeRecommendation, ...] = ()
    """One for each GPU asked about, in that order."""
    accumulation: AccumulationPlan | None = None
    """For the first GPU. Not set without a global_batch_size."""
    placements: tuple[Placement, ...] = ()
    """One for each GPU asked about, in that order."""
    profile: MeasuredProfile | None = None
    """What was measured for the first GPU: within measurement_budget, or earlier, as in
    EstimateMemoryResponse."""
    measurement_notes: tuple[str, ...] = ()
    """What became of the measurement_budget, in sentences: what was measured on what and what
    followed for the plan, or why nothing was measured, which never fails the plan. Empty without
    one."""
    scheduler_request: str = ""
    """What to ask the scheduler for, in its own words: where a global_batch_size is given, the
    first GPU with the micro-batches of the accumulation plan; else every GPU on which the job fits
    that can be asked for together with the first of them. Where there is none, a comment with the
    reason. Empty without a scheduler."""
    job_digest: str = ""
    """Digest of the job, which names it in profiles and metrics: the same at every micro-batch
    size."""

    def _repr_html_(self) -> str:
        """How notebooks show it."""
        from memplan.notebook import plan_html

        return plan_html(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListGpuTypesRequest:
    """Request of ListGpuTypes."""

    page_size: int = 0
    """At most so many. Default 50, at most 1,000."""
    page_token: str = ""
    """next_page_token of the page before. Default: the first page."""
    filter: str = ""
    """Only types whose name or alias contains this, case ignored. At most 200 characters. Default:
    all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListGpuTypesResponse:
    """Response of ListGpuTypes."""

    gpu_types: tuple[GpuType, ...] = ()
    """The types, by name."""
    next_page_token: str = ""
    """Token of the next page; empty on the last one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListModelsRequest:
    """Request of ListModels."""

    page_size: int = 0
    """At most so many. Default 100, at most 1,000."""
    page_token: str = ""
    """next_page_token of the page before. Default: the first page."""
    filter: str = ""
    """Only models whose name contains this, case ignored. At most 200 characters. Default: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model that can be named."""

    name: str = ""
    """`library/model`."""
    library: str = ""
    """`torchvision`, `timm` or `transformers`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListModelsResponse:
    """Response of ListModels."""

    models: tuple[ModelInfo, ...] = ()
    """The models, by name."""
    next_page_token: str = ""
    """Token of the next page; empty on the last one."""
