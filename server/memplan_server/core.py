"""The planner: what the service does, free of any transport.

    planner.plan_job(PlanJobRequest(job=job), Call(timeout_s=60))     # -> PlanJobResponse

One method an RPC, from request to response in the types of `memplan.types`. Raises
`memplan_server.errors` only, unless the server has a defect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from memplan import types
from memplan.ranks import in_ranks
from memplan.types import GpuTarget, MeasuredProfile, MemoryEstimate, TrainingJob
from memplan_server import dialects, paging, planning
from memplan_server.calls import Call
from memplan_server.confirmation import Confirmation
from memplan_server.errors import InvalidJob, Violation
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import job_digest, normalize
from memplan_server.knowledge import Knowledge
from memplan_server.names import ModelNames
from memplan_server.planning import Goal, Target
from memplan_server.profiles import ProfileStore
from memplan_server.profiling import Asked, Profiler
from memplan_server.timelines import CallTimelines, TimelineCache
from memplan_server.validation import check

__all__ = ["Planner"]

DEFAULT_GPU_TYPE = "nvidia-a100-80gb"
DEFAULT_HEADROOM = 0.05
GPU_TYPES_A_PAGE = 50
MODELS_A_PAGE = 100
PROFILES_A_PAGE = 50


class Planner:
    """Answers requests. Safe to use from several threads."""

    def __init__(
        self,
        *,
        knowledge: Knowledge,
        timelines: TimelineCache,
        names: ModelNames,
        profiler: Profiler,
        profiles: ProfileStore,
        longest_profile_s: float = 600.0,
    ) -> None:
        """What `profiler` measures is found in `profiles` afterwards; no profile may take longer
        than `longest_profile_s` once it runs."""
        self._knowledge = knowledge
        self._timelines = timelines
        self._names = names
        self._profiler = profiler
        self._profiles = profiles
        self._confirmation = Confirmation(profiler=profiler, profiles=profiles)
        self._longest_profile_s = longest_profile_s

    def estimate_memory(
        self, request: types.EstimateMemoryRequest, call: Call
    ) -> types.EstimateMemoryResponse:
        """The memory the job takes on one GPU type."""
        check(request)
        known = self._knowledge.now()
        gpu_type = known.catalog.get(request.gpu_type or DEFAULT_GPU_TYPE)
        job = self._known(request.job, call)
        estimate = planning.estimate_memory(
            self._seen_by(call),
            job,
            gpu_type,
            confidence=_confidence(request.confidence),
            learned=known.learned,
        )
        if not request.gpu_type:
            estimate = _assuming(estimate, f"no GPU type was given: {DEFAULT_GPU_TYPE}")
        return types.EstimateMemoryResponse(
            estimate=estimate, profile=self._measured(job, gpu_type.name)
        )

    def recommend_batch_size(
        self, request: types.RecommendBatchSizeRequest, call: Call
    ) -> types.RecommendBatchSizeResponse:
        """The largest micro-batch size for each GPU."""
        check(request)
        known = self._knowledge.now()
        targets = _targets(known.catalog, request.gpus, mig=True)
        job, timelines = self._known(request.job, call), self._seen_by(call)
        timelines.prepare(job, [target.gpu_type for target in targets])
        batch_sizes = planning.recommend_batch_sizes(
            timelines,
            job,
            targets,
            headroom_fraction=_headroom(request.headroom_fraction),
            multiple_of=request.multiple_of,
            max_batch_size=request.max_batch_size,
            confidence=_confidence(request.confidence),
            learned=known.learned,
        )
        return types.RecommendBatchSizeResponse(batch_sizes=batch_sizes)

    def plan_accumulation(
        self, request: types.PlanAccumulationRequest, call: Call
    ) -> types.PlanAccumulationResponse:
        """Micro-batch size and accumulation steps for a global batch."""
        check(request)
        known = self._knowledge.now()
        (target,) = _targets(known.catalog, [request.gpu], mig=True)
        accumulation = planning.plan_accumulation(
            self._seen_by(call),
            self._known(request.job, call, request.data_parallel_size),
            target,
            global_batch_size=request.global_batch_size,
            data_parallel_size=request.data_parallel_size or 1,
            headroom_fraction=_headroom(request.headroom_fraction),
            confidence=_confidence(request.confidence),
            learned=known.learned,
        )
        return types.PlanAccumulationResponse(accumulation=accumulation)

    def plan_job(
        self, request: types.PlanJobRequest, call: Call, *, peer: str = ""
    ) -> types.PlanJobResponse:
        """Everything in one answer; `peer` is who asks to have it measured."""
        check(request)
        self._check_time_limit("measurement_budget", request.measurement_budget)
        known = self._knowledge.now()
        targets = _targets(known.catalog, request.gpus, mig=False)
        job, timelines = (
            self._known(request.job, call, request.data_parallel_size),
            self._seen_by(call),
        )
        timelines.prepare(job, [target.gpu_type for target in targets])
        goal = Goal(
            job=job,
            targets=targets,
            global_batch_size=request.global_batch_size,
            data_parallel_size=request.data_parallel_size or 1,
            headroom_fraction=_headroom(request.headroom_fraction),
            confidence=_confidence(request.confidence),
            catalog=known.catalog.all(),
            learned=known.learned,
            patient=call.has_most_left,
        )
        plan = replace(
            planning.plan_job(timelines, goal),
            profile=self._measured(job, targets[0].gpu_type.name),
        )
        if request.measurement_budget is not None:
            plan = self._confirmation.confirm(
                timelines, goal, plan, request.measurement_budget, call, peer=peer
            )
        gpu_types = [target.gpu_type for target in targets]
        text = dialects.render(request.scheduler, dialects.wanted(request, plan, gpu_types))
        return replace(plan, scheduler_request=text, job_digest=job_digest(job))

    def profile_memory(
        self,
        request: types.ProfileMemoryRequest,
        call: Call,
        *,
        peer: str = "",
        forwarded: bool = False,
    ) -> Iterator[types.ProfileMemoryResponse]:
        """Really run the job; what happens, as it happens.

        `peer` is who asks; `forwarded`: another server, which must not get it back.
        """
        check(request)
        self._check_time_limit("time_limit", request.time_limit)
        gpu_type = self._gpu_type_name(request.gpu_type)
        asked = Asked.of(
            replace(request, job=self._known(request.job, call), gpu_type=gpu_type),
            peer=peer,
            forwarded=forwarded,
        )
        yield from self._profiler.profile(asked, call)

    def _check_time_limit(self, field: str, limit: timedelta | None) -> None:
        """Raise InvalidJob for more time than a profile gets here."""
        longest = self._longest_profile_s
        if limit is not None and limit.total_seconds() > longest:
            raise InvalidJob(Violation(field, f"must be at most {longest:g} s on this server."))

    def get_profile(self, request: types.GetProfileRequest, call: Call) -> types.GetProfileResponse:
        """A profile that was stored. Raises UnknownName, StoreFailure."""
        check(request)
        return types.GetProfileResponse(profile=self._profiles.get(request.profile_id))

    def list_profiles(
        self, request: types.ListProfilesRequest, call: Call
    ) -> types.ListProfilesResponse:
        """The stored profiles, page by page. Raises StoreFailure."""
        check(request)
        gpu_type = self._gpu_type_name(request.gpu_type)
        wanted = f"{gpu_type}\0{request.job_digest}"
        page = self._profiles.page(
            size=request.page_size or PROFILES_A_PAGE,
            after=paging.check_token("profiles", request.page_token, wanted),
            gpu_type=gpu_type,
            job_digest=request.job_digest,
        )
        token = page.next_after and paging.token_after("profiles", page.next_after, wanted)
        return types.ListProfilesResponse(profiles=page.profiles, next_page_token=token)

    def list_gpu_types(
        self, request: types.ListGpuTypesRequest, call: Call
    ) -> types.ListGpuTypesResponse:
        """The GPU catalog, page by page."""
        check(request)
        wanted = request.filter.casefold()
        named = {
            gpu_type.name: gpu_type
            for gpu_type in self._knowledge.now().catalog.all()
            if any(wanted in name.casefold() for name in (gpu_type.name, *gpu_type.aliases))
        }
        size = request.page_size or GPU_TYPES_A_PAGE
        page = paging.page("gpu_types", list(named), size, request.page_token, request.filter)
        return types.ListGpuTypesResponse(
            gpu_types=tuple(named[name] for name in page.names), next_page_token=page.next_token
        )

    def list_models(self, request: types.ListModelsRequest, call: Call) -> types.ListModelsResponse:
        """The models that can be named, page by page."""
        check(request)
        paging.check_token("models", request.page_token, request.filter)
        wanted = request.filter.casefold()
        names = [name for name in self._names.all(call) if wanted in name.casefold()]
        size = request.page_size or MODELS_A_PAGE
        page = paging.page("models", names, size, request.page_token, request.filter)
        models = (types.ModelInfo(name=n, library=n.partition("/")[0]) for n in page.names)
        return types.ListModelsResponse(models=tuple(models), next_page_token=page.next_token)

    def _known(self, job: TrainingJob, call: Call, data_parallel_size: int = 1) -> TrainingJob:
        """The job of one of so many ranks with its defaults written out.

        Raises UnknownName for its model.
        """
        if job.model.catalog is not None:
            self._names.check(job.model.catalog.name, call)
        job = in_ranks(job, data_parallel_size)
        sharded = job.data_parallel.strategy is types.DataParallelStrategy.FSDP
        if sharded and not job.data_parallel.shard_count:
            said = (
                "is required with FSDP, unless data_parallel_size is above 1: how many ranks share "
                "the model."
            )
            raise InvalidJob(Violation("job.data_parallel.shard_count", said))
        return normalize(job)

    def _measured(self, job: TrainingJob, gpu_type: str) -> MeasuredProfile | None:
        """What is known of a normalised job on a GPU type from measurement."""
        return self._profiles.newest(job_digest(job), gpu_type, job.micro_batch_size)

    def _seen_by(self, call: Call) -> CallTimelines:
        return CallTimelines(self._timelines, call)

    def _gpu_type_name(self, name: str) -> str:
        """The name in the catalog; "" stays "". Raises UnknownName."""
        return self._knowledge.now().catalog.get(name).name if name else ""


def _targets(catalog: GpuCatalog, gpus: Sequence[GpuTarget], *, mig: bool) -> tuple[Target, ...]:
    """The GPUs asked about by their catalog names; by default all, MIG profiles if `mig`."""
    if not gpus:
        wanted = [g for g in catalog.all() if mig or not g.mig_parent]
        return tuple(Target(gpu=GpuTarget(gpu_type=g.name), gpu_type=g) for g in wanted)
    found = [(gpu, catalog.get(gpu.gpu_type)) for gpu in gpus]
    return tuple(Target(gpu=replace(gpu, gpu_type=g.name), gpu_type=g) for gpu, g in found)


def _headroom(fraction: float | None) -> float:
    return DEFAULT_HEADROOM if fraction is None else fraction


def _confidence(asked: float) -> float:
    return asked or planning.CONFIDENCE


def _assuming(estimate: MemoryEstimate, assumption: str) -> MemoryEstimate:
    return replace(estimate, assumptions=(assumption, *estimate.assumptions))
