"""The client: one typed method an RPC.

    with Client("planner.example.org:50051") as client:
        plan = client.plan_job(job, ["nvidia-t4", "nvidia-a100-40gb"], global_batch_size=1024)
        print(plan.placements[0].verdict)

Every call has a deadline. Calls that fail because the server cannot be reached are retried, and no
others. A target that resolves to several addresses (a headless Service, `dns:///name:50051`, a list
`a:50051,b:50051`) is used in turn, servers that drain left out; what is only host:port may be a
proxy that does so.

Methods raise `memplan.errors` and nothing else for what servers and networks do.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from memplan._connection import Connection
from memplan.endpoint import DEFAULT_TARGET, Endpoint
from memplan.types import (
    AccumulationPlan,
    BatchSizeRecommendation,
    DeviceType,
    EstimateMemoryRequest,
    EstimateMemoryResponse,
    GetProfileRequest,
    GpuTarget,
    GpuType,
    ListGpuTypesRequest,
    ListModelsRequest,
    ListProfilesRequest,
    MeasuredProfile,
    ModelInfo,
    PlanAccumulationRequest,
    PlanJobRequest,
    PlanJobResponse,
    ProfileMemoryRequest,
    ProfileMemoryResponse,
    RecommendBatchSizeRequest,
    Scheduler,
    TrainingJob,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["DEFAULT_TARGET", "Client"]

_TIME_LIMIT = timedelta(seconds=60)
"""The server's own for a profile that names none."""


class Client:
    """A connection to a memplan server. Safe to use from several threads.

    with Client(timeout=30) as client:
        answer = client.estimate_memory(job, gpu_type="nvidia-t4")
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int | None = None,
        tls: bool | None = None,
        root_certificates: str | Path | None = None,
        client_certificate: str | Path | None = None,
        client_key: str | Path | None = None,
        server_name: str | None = None,
        token_file: str | Path | None = None,
        plaintext_token: bool | None = None,
        keepalive: float | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Nothing is sent before the first call.

        target: host:port, several with commas between them, or any gRPC target. Without one it is
        $MEMPLAN_SERVER, else localhost:50051, and what is not given comes from the environment too.
        timeout: seconds that each call may take unless its own `timeout` says otherwise.
        retries: how often a call is tried again while the server cannot be reached, 0 to 4;
        default 3. Never tried again: `profile_memory`.
        tls: encrypt; implied by the three files. `root_certificates` are the authorities trusted
        (PEM; default: the system's), `client_certificate` and `client_key` what the client shows,
        `server_name` whom the server's certificate has to name, where that is not the target.
        token_file: file with the token that says who asks. It needs TLS, or `plaintext_token`
        where something else encrypts.
        keepalive: seconds of silence, at least 10, after which the server is asked whether it is
        still there.
        options: further gRPC channel options.

        Files are read again when they change. Raises ValueError for impossible arguments and
        OSError for files that cannot be read.
        """
        endpoint = Endpoint.of(
            target or None,
            retries=retries,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
            server_name=server_name,
            token_file=token_file,
            plaintext_token=plaintext_token,
            keepalive=keepalive,
        )
        self._connection = Connection(endpoint, timeout=timeout, options=options)

    @property
    def target(self) -> str:
        """What it connects to."""
        return self._connection.target

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way fail with CancelledError."""
        self._connection.close()

    def estimate_memory(
        self,
        job: TrainingJob,
        *,
        gpu_type: str = "",
        confidence: float = 0.0,
        timeout: float | None = None,
    ) -> EstimateMemoryResponse:
        """The memory that a job takes on one GPU type, and what was measured of it before.

        answer = client.estimate_memory(job, gpu_type="nvidia-t4")
        answer.estimate.device_used_bytes
        if answer.profile is not None:
            answer.profile.device_used_bytes
        """
        request = EstimateMemoryRequest(job=job, gpu_type=gpu_type, confidence=confidence)
        answer: EstimateMemoryResponse = self._connection.call("EstimateMemory", request, timeout)
        return answer

    def recommend_batch_size(
        self,
        job: TrainingJob,
        gpus: Iterable[GpuTarget | str] = (),
        *,
        headroom_fraction: float | None = None,
        confidence: float = 0.0,
        multiple_of: int = 0,
        max_batch_size: int = 0,
        timeout: float | None = None,
    ) -> tuple[BatchSizeRecommendation, ...]:
        """The largest and the recommended micro-batch size for each GPU, in the order given.

        [t4] = client.recommend_batch_size(job, ["nvidia-t4"])
        t4.recommended_batch_size
        """
        request = RecommendBatchSizeRequest(
            job=job,
            gpus=_targets(gpus),
            headroom_fraction=headroom_fraction,
            confidence=confidence,
            multiple_of=multiple_of,
            max_batch_size=max_batch_size,
        )
        answer = self._connection.call("RecommendBatchSize", request, timeout)
        batch_sizes: tuple[BatchSizeRecommendation, ...] = answer.batch_sizes
        return batch_sizes

    def plan_accumulation(
        self,
        job: TrainingJob,
        gpu: GpuTarget | str,
        *,
        global_batch_size: int,
        data_parallel_size: int = 0,
        headroom_fraction: float | None = None,
        confidence: float = 0.0,
        timeout: float | None = None,
    ) -> AccumulationPlan:
        """How a global batch is reached on one GPU type.

        plan = client.plan_accumulation(job, "nvidia-t4", global_batch_size=1024)
        plan.micro_batch_size, plan.accumulation_steps
        """
        request = PlanAccumulationRequest(
            job=job,
            gpu=_target(gpu),
            global_batch_size=global_batch_size,
            data_parallel_size=data_parallel_size,
            headroom_fraction=headroom_fraction,
            confidence=confidence,
        )
        answer = self._connection.call("PlanAccumulation", request, timeout)
        plan: AccumulationPlan = answer.accumulation
        return plan

    def plan_job(
        self,
        job: TrainingJob,
        gpus: Iterable[GpuTarget | str] = (),
        *,
        global_batch_size: int = 0,
        data_parallel_size: int = 0,
        headroom_fraction: float | None = None,
        confidence: float = 0.0,
        measurement_budget: timedelta | None = None,
        scheduler: Scheduler = Scheduler.UNSPECIFIED,
        timeout: float | None = None,
    ) -> PlanJobResponse:
        """Everything in one answer: estimate, batch sizes, accumulation and placements.

        l4 = GpuTarget(gpu_type="nvidia-l4", free_bytes=8 << 30)
        plan = client.plan_job(job, ["nvidia-t4", l4])
        [p.gpu.gpu_type for p in plan.placements if p.verdict is Verdict.FITS]

        With a `measurement_budget` the server may spend so long on really running the job on a GPU;
        `plan.profile` is what it saw. The budget comes on top of the client's own timeout. With a
        `scheduler`, `plan.scheduler_request` is what to ask it for.
        """
        request = PlanJobRequest(
            job=job,
            gpus=_targets(gpus),
            global_batch_size=global_batch_size,
            data_parallel_size=data_parallel_size,
            headroom_fraction=headroom_fraction,
            confidence=confidence,
            measurement_budget=measurement_budget,
            scheduler=scheduler,
        )
        seconds = self._connection.measuring(timeout, measurement_budget or timedelta())
        plan: PlanJobResponse = self._connection.call("PlanJob", request, seconds)
        return plan

    def plan_module(
        self,
        module: nn.Module,
        inputs: Any,
        optimizer: torch.optim.Optimizer,
        gpus: Iterable[GpuTarget | str] = (),
        *,
        global_batch_size: int = 0,
        data_parallel_size: int = 0,
        headroom_fraction: float | None = None,
        confidence: float = 0.0,
        measurement_budget: timedelta | None = None,
        scheduler: Scheduler = Scheduler.UNSPECIFIED,
        timeout: float | None = None,
        **options: Any,
    ) -> PlanJobResponse:
        """`plan_job` of a module of your own, captured by `memplan.capture_job(..., **options)`.

        plan = client.plan_module(model, x, optimizer, ["nvidia-t4"], loss=loss_fn, targets=y)

        Neither code nor weights are sent. Raises CaptureError besides.
        """
        from memplan.capturing import capture_job  # imports torch

        return self.plan_job(
            capture_job(module, inputs, optimizer, **options),
            gpus,
            global_batch_size=global_batch_size,
            data_parallel_size=data_parallel_size,
            headroom_fraction=headroom_fraction,
            confidence=confidence,
            measurement_budget=measurement_budget,
            scheduler=scheduler,
            timeout=timeout,
        )

    def profile_memory(
        self,
        job: TrainingJob,
        *,
        step_count: int = 0,
        memory_limit_bytes: int = 0,
        time_limit: timedelta | None = None,
        device_type: DeviceType = DeviceType.UNSPECIFIED,
        gpu_type: str = "",
        warmup_step_count: int = 0,
        wait_for_gpu: bool = False,
        find_batch_size: bool = False,
        timeout: float | None = None,
    ) -> Generator[ProfileMemoryResponse, None, None]:
        """Really run some steps on the server. Yields progress; the last event has the profile.

        for event in client.profile_memory(job, timeout=600):
            if event.profile is not None:
                event.profile.peak_reserved_bytes, event.profile.out_of_memory

        It starts with the first event asked for. Closing the generator cancels: the server stops
        what it runs. `timeout` covers the whole stream, waiting for a device included; by default
        `time_limit` comes on top of the client's own.

        Out of memory is a result. Raises UnsupportedError where no such device is there,
        LimitExceededError where the queue is full or others use the GPU, and ServerError where the
        process that measures crashed.
        """
        request = ProfileMemoryRequest(
            job=job,
            step_count=step_count,
            memory_limit_bytes=memory_limit_bytes,
            time_limit=time_limit,
            device_type=device_type,
            gpu_type=gpu_type,
            warmup_step_count=warmup_step_count,
            wait_for_gpu=wait_for_gpu,
            find_batch_size=find_batch_size,
        )
        seconds = self._connection.measuring(timeout, time_limit or _TIME_LIMIT)
        return self._connection.stream("ProfileMemory", request, seconds)

    def get_profile(self, profile_id: str, *, timeout: float | None = None) -> MeasuredProfile:
        """A profile that was stored, with its curve.

        profile = client.get_profile("p-1")
        max(profile.curve, key=lambda point: point.reserved_bytes)

        Raises UnknownNameError.
        """
        request = GetProfileRequest(profile_id=profile_id)
        profile: MeasuredProfile = self._connection.call("GetProfile", request, timeout).profile
        return profile

    def list_profiles(
        self,
        *,
        gpu_type: str = "",
        job_digest: str = "",
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[MeasuredProfile]:
        """The stored profiles, newest first, without their curves.

        [p.profile_id for p in client.list_profiles(gpu_type="nvidia-t4")]

        Pages of `page_size` are fetched as needed; `timeout` is for each of them.
        """
        request = ListProfilesRequest(page_size=page_size, gpu_type=gpu_type, job_digest=job_digest)
        return self._connection.pages("ListProfiles", request, "profiles", timeout)

    def list_gpu_types(
        self, filter: str = "", *, page_size: int = 0, timeout: float | None = None
    ) -> Iterator[GpuType]:
        """The GPU catalog, by name; `filter` is part of a name or alias.

        names = [gpu.name for gpu in client.list_gpu_types("a100")]

        Pages of `page_size` are fetched as needed; `timeout` is for each of them.
        """
        request = ListGpuTypesRequest(page_size=page_size, filter=filter)
        return self._connection.pages("ListGpuTypes", request, "gpu_types", timeout)

    def list_models(
        self, filter: str = "", *, page_size: int = 0, timeout: float | None = None
    ) -> Iterator[ModelInfo]:
        """The models that can be named, by name; `filter` is part of a name.

        names = [model.name for model in client.list_models("resnet")]

        Pages of `page_size` are fetched as needed; `timeout` is for each of them.
        """
        request = ListModelsRequest(page_size=page_size, filter=filter)
        return self._connection.pages("ListModels", request, "models", timeout)


def _targets(gpus: Iterable[GpuTarget | str]) -> tuple[GpuTarget, ...]:
    if isinstance(gpus, str):
        raise TypeError(f"gpus must be several: write [{gpus!r}]")
    return tuple(map(_target, gpus))


def _target(gpu: GpuTarget | str) -> GpuTarget:
    return GpuTarget(gpu_type=gpu) if isinstance(gpu, str) else gpu
