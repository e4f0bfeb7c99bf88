"""Rules of the requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from memplan.types import (
    DeviceType,
    EstimateMemoryRequest,
    GetProfileRequest,
    GpuTarget,
    ListGpuTypesRequest,
    ListModelsRequest,
    ListProfilesRequest,
    PlanAccumulationRequest,
    PlanJobRequest,
    ProfileMemoryRequest,
    RecommendBatchSizeRequest,
    TrainingJob,
)
from memplan_server.errors import InvalidJob, Violation
from memplan_server.planning import CONFIDENCE
from memplan_server.validation.jobs import LARGEST_BATCH, job_violations, measuring_violations
from memplan_server.validation.rules import Violations, fraction, text, whole

__all__ = ["check", "violations_of"]

MOST_GPUS = 256
LARGEST_GPU = 2**50
LARGEST_GLOBAL_BATCH = 2**40
MOST_RANKS = 2**20
LARGEST_MULTIPLE = 4_096
LARGEST_HEADROOM = 0.9
LOWEST_CONFIDENCE = 0.5
HIGHEST_CONFIDENCE = CONFIDENCE
LARGEST_PAGE = 1_000
MOST_STEPS = 100
LONGEST_NAME = 200


def check(request: object) -> None:
    """Raise InvalidJob with every rule that the request breaks."""
    violations = tuple(violations_of(request))
    if violations:
        raise InvalidJob(*violations)


def violations_of(request: object) -> Iterator[Violation]:
    """Every rule that the request breaks."""
    return _RULES[type(request)](request)


def _estimate_memory(request: EstimateMemoryRequest) -> Violations:
    yield from job_violations(request.job, "job", batch_required=True)
    yield from text("gpu_type", request.gpu_type, longest=LONGEST_NAME)
    yield from _confidence(request.confidence)


def _recommend_batch_size(request: RecommendBatchSizeRequest) -> Violations:
    yield from job_violations(request.job, "job", batch_required=False)
    yield from _searchable(request.job)
    yield from _gpus(request.gpus)
    yield from _headroom(request.headroom_fraction)
    yield from whole("multiple_of", request.multiple_of, 1, LARGEST_MULTIPLE, unset=True)
    yield from whole("max_batch_size", request.max_batch_size, 1, LARGEST_BATCH, unset=True)
    yield from _confidence(request.confidence)


def _plan_accumulation(request: PlanAccumulationRequest) -> Violations:
    yield from job_violations(request.job, "job", batch_required=False)
    yield from _searchable(request.job)
    yield from _gpu(request.gpu, "gpu")
    yield from whole("global_batch_size", request.global_batch_size, 1, LARGEST_GLOBAL_BATCH)
    yield from _data_parallel(request.global_batch_size, request.data_parallel_size)
    yield from _shards(request.job.data_parallel.shard_count, request.data_parallel_size)
    yield from _headroom(request.headroom_fraction)
    yield from _confidence(request.confidence)


def _plan_job(request: PlanJobRequest) -> Violations:
    yield from job_violations(request.job, "job", batch_required=True)
    yield from _searchable(request.job)
    yield from _gpus(request.gpus)
    size = request.global_batch_size
    yield from whole("global_batch_size", size, 1, LARGEST_GLOBAL_BATCH, unset=True)
    yield from _data_parallel(size, request.data_parallel_size)
    yield from _shards(request.job.data_parallel.shard_count, request.data_parallel_size)
    yield from _headroom(request.headroom_fraction)
    yield from _confidence(request.confidence)
    if request.measurement_budget is not None:
        yield from measuring_violations(request.job, "job")
    if request.measurement_budget is not None and request.measurement_budget <= timedelta():
        yield Violation("measurement_budget", "must be above 0; leave it out to measure nothing.")


def _profile_memory(request: ProfileMemoryRequest) -> Violations:
    yield from job_violations(request.job, "job", batch_required=True)
    yield from measuring_violations(request.job, "job")
    yield from whole("step_count", request.step_count, 1, MOST_STEPS, unset=True)
    yield from whole("warmup_step_count", request.warmup_step_count, 1, MOST_STEPS, unset=True)
    yield from whole("memory_limit_bytes", request.memory_limit_bytes, 1, LARGEST_GPU, unset=True)
    yield from text("gpu_type", request.gpu_type, longest=LONGEST_NAME)
    if request.time_limit is not None and request.time_limit <= timedelta():
        yield Violation("time_limit", "must be above 0; leave it out for 60 s.")
    if request.find_batch_size:
        yield from _searchable(request.job)
    if request.find_batch_size and request.device_type is DeviceType.CPU:
        yield Violation(
            "find_batch_size", "takes a CUDA GPU: how fast a CPU is tells nothing of a GPU."
        )


def _searchable(job: TrainingJob) -> Violations:
    """For requests that try other batch sizes than the job's."""
    graph = job.model.graph
    if graph is not None and graph.fixed_batch_size:
        only = f"The graph holds for a batch of {graph.fixed_batch_size} only, and this searches"
        said = f"{only} others: ask for an estimate (EstimateMemory) instead."
        yield Violation("job.model.graph.fixed_batch_size", said)


def _gpus(gpus: Sequence[GpuTarget]) -> Violations:
    if len(gpus) > MOST_GPUS:
        yield Violation("gpus", f"has {len(gpus):,} entries; at most {MOST_GPUS} are allowed.")
        return
    for index, gpu in enumerate(gpus):
        yield from _gpu(gpu, f"gpus[{index}]")


def _gpu(gpu: GpuTarget, at: str) -> Violations:
    if not gpu.gpu_type:
        yield Violation(f"{at}.gpu_type", "is required: `nvidia-a100-80gb`, for example.")
    yield from text(f"{at}.gpu_type", gpu.gpu_type, longest=LONGEST_NAME)
    if gpu.free_bytes is not None:
        yield from whole(f"{at}.free_bytes", gpu.free_bytes, 0, LARGEST_GPU)


def _shards(shard_count: int, data_parallel_size: int) -> Violations:
    if data_parallel_size > 1 and shard_count > 0 and data_parallel_size % shard_count:
        wrong = f"{data_parallel_size} ranks do not divide into groups of {shard_count}."
        yield Violation("job.data_parallel.shard_count", wrong)


def _data_parallel(global_batch_size: int, data_parallel_size: int) -> Violations:
    yield from whole("data_parallel_size", data_parallel_size, 1, MOST_RANKS, unset=True)
    if global_batch_size > 0 and data_parallel_size > 0 and global_batch_size % data_parallel_size:
        wrong = f"{global_batch_size} is no multiple of the {data_parallel_size} ranks."
        yield Violation("global_batch_size", wrong)


def _headroom(value: float | None) -> Violations:
    return fraction("headroom_fraction", value, high=LARGEST_HEADROOM, closed=True)


def _confidence(value: float) -> Violations:
    """From the lowest to the highest; 0 for "not given"."""
    if value == 0 or LOWEST_CONFIDENCE <= value <= HIGHEST_CONFIDENCE:
        return
    wrong = f"must be a number from {LOWEST_CONFIDENCE} to {HIGHEST_CONFIDENCE}, not {value}"
    why = ": there are not enough measurements for more" if value > HIGHEST_CONFIDENCE else ""
    yield Violation("confidence", f"{wrong}{why}.")


def _page(request: ListGpuTypesRequest | ListModelsRequest) -> Violations:
    yield from whole("page_size", request.page_size, 1, LARGEST_PAGE, unset=True)
    yield from text("filter", request.filter, longest=LONGEST_NAME)


def _get_profile(request: GetProfileRequest) -> Violations:
    if not request.profile_id:
        yield Violation("profile_id", "is required: what ListProfiles names.")
    yield from text("profile_id", request.profile_id, longest=LONGEST_NAME)


def _list_profiles(request: ListProfilesRequest) -> Violations:
    yield from whole("page_size", request.page_size, 1, LARGEST_PAGE, unset=True)
    yield from text("gpu_type", request.gpu_type, longest=LONGEST_NAME)
    yield from text("job_digest", request.job_digest, longest=LONGEST_NAME)


_RULES: dict[type, Callable[[Any], Violations]] = {
    EstimateMemoryRequest: _estimate_memory,
    RecommendBatchSizeRequest: _recommend_batch_size,
    PlanAccumulationRequest: _plan_accumulation,
    PlanJobRequest: _plan_job,
    ProfileMemoryRequest: _profile_memory,
    GetProfileRequest: _get_profile,
    ListProfilesRequest: _list_profiles,
    ListGpuTypesRequest: _page,
    ListModelsRequest: _page,
}
