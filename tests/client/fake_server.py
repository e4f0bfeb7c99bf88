"""A real gRPC server with canned answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from memplan.types import (
    AccumulationPlan,
    BatchSizeFormula,
    BatchSizePoint,
    BatchSizeRecommendation,
    DeviceType,
    EstimateMemoryResponse,
    GetProfileResponse,
    GpuTarget,
    GpuType,
    ListGpuTypesResponse,
    ListModelsResponse,
    ListProfilesResponse,
    MeasuredProfile,
    MemoryBreakdown,
    MemoryEstimate,
    MemoryPoint,
    ModelInfo,
    ModelState,
    ModuleMemory,
    Phase,
    PhasePeak,
    Placement,
    PlanAccumulationResponse,
    PlanJobResponse,
    Precision,
    RecommendBatchSizeResponse,
    Remedy,
    Verdict,
)
from memplan.v1 import planner_pb2_grpc
from memplan.wire import from_proto, to_proto

GIB = 1 << 30

BREAKDOWN = MemoryBreakdown(
    parameter_bytes=102_228_128,
    gradient_bytes=102_228_128,
    optimizer_state_bytes=204_456_256,
    activation_bytes=5_500_000_000,
    temporary_bytes=120_000_000,
    context_bytes=450 << 20,
    fragmentation_bytes=130_000_000,
)
DEVICE_USED = sum(getattr(BREAKDOWN, name) for name in MemoryBreakdown.__slots__)
ESTIMATE = MemoryEstimate(
    gpu_type="nvidia-a100-40gb",
    micro_batch_size=64,
    peak_allocated_bytes=6_000_000_000,
    peak_reserved_bytes=DEVICE_USED - (450 << 20),
    device_used_bytes=DEVICE_USED,
    upper_bound_bytes=7 * GIB,
    lower_bound_bytes=6 * GIB,
    confidence=0.95,
    peak_phase=Phase.BACKWARD,
    breakdown=BREAKDOWN,
    model_state=ModelState(parameter_count=25_557_032, parameter_bytes=102_228_128),
    top_modules=(
        ModuleMemory(module="layer1.0.bn3", type="BatchNorm2d", activation_bytes=411_041_792),
        ModuleMemory(module="", type="ResNet", activation_bytes=1_000_000),
    ),
    assumptions=("The loop keeps its variables until they are overwritten.",),
    library_versions={"torch": "2.13.0", "torchvision": "0.28.0"},
)


def placement(gpu_type: str, verdict: Verdict, free_bytes: int | None = None) -> Placement:
    fits = verdict is Verdict.FITS
    remedy = Remedy(
        description="fits with micro-batch 24 x 43 steps",
        micro_batch_size=24,
        accumulation_steps=43,
    )
    return Placement(
        gpu=GpuTarget(gpu_type=gpu_type, free_bytes=free_bytes),
        verdict=verdict,
        capacity_bytes=16 * GIB if fits else 6 * GIB,
        device_used_bytes=DEVICE_USED,
        upper_bound_bytes=7 * GIB,
        spare_bytes=9 * GIB if fits else 0,
        missing_bytes=0 if fits else GIB,
        reason="It fits." if fits else "It needs 1.0 GiB more.",
        remedies=() if fits else (remedy, Remedy(description="bf16", precision=Precision.BF16)),
    )


def recommendation(gpu_type: str, batch: int) -> BatchSizeRecommendation:
    return BatchSizeRecommendation(
        gpu=GpuTarget(gpu_type=gpu_type),
        capacity_bytes=16 * GIB,
        max_batch_size=batch,
        max_device_used_bytes=15 * GIB if batch else 0,
        recommended_batch_size=batch // 8 * 8,
        recommended_device_used_bytes=14 * GIB if batch else 0,
        multiple_of=8,
        formula=BatchSizeFormula(fixed_bytes=GIB, bytes_per_sample=90_000_000, batch_size=170),
        curve=(BatchSizePoint(batch_size=1, device_used_bytes=GIB),),
        reason="Leaves 5 % free." if batch else "Not even one sample fits.",
    )


ACCUMULATION = AccumulationPlan(
    gpu=GpuTarget(gpu_type="nvidia-a100-40gb"),
    feasible=True,
    global_batch_size=1024,
    data_parallel_size=1,
    micro_batch_size=60,
    accumulation_steps=18,
    last_micro_batch_size=4,
    max_micro_batch_size=64,
    device_used_bytes=7 * GIB,
    reason="Fewest steps that fit.",
    advice=("Divide the loss by 18.",),
)


PROFILE = MeasuredProfile(
    profile_id="p-0",
    device_name="NVIDIA A100-SXM4-40GB",
    device_type=DeviceType.CUDA,
    gpu_type="nvidia-a100-40gb",
    host="gpu-7",
    job_digest="d41d",
    create_time=datetime(2026, 1, 31, 8, 15, 30, tzinfo=UTC),
    micro_batch_size=64,
    peak_allocated_bytes=6_000_000_000,
    peak_reserved_bytes=ESTIMATE.peak_reserved_bytes + GIB // 2,
    device_used_bytes=DEVICE_USED + GIB // 2,
    memory_limit_bytes=39 * GIB,
    context_before_bytes=400 << 20,
    context_after_bytes=450 << 20,
    step_count=3,
    warmup_step_count=2,
    step_time=timedelta(milliseconds=120.5),
    step_time_p10=timedelta(milliseconds=119),
    step_time_p90=timedelta(milliseconds=125),
    samples_per_second=531.1,
    phases=(
        PhasePeak(phase=Phase.FORWARD, peak_allocated_bytes=5 * GIB, peak_reserved_bytes=6 * GIB),
        PhasePeak(phase=Phase.BACKWARD, peak_allocated_bytes=6 * GIB, peak_reserved_bytes=7 * GIB),
    ),
    notes=("Another process used the GPU before.",),
    library_versions={"torch": "2.11.0", "driver": "570.1"},
)


def stored(profile_id: str) -> MeasuredProfile:
    """A profile of the store, with a curve."""
    curve = (MemoryPoint(event=9, allocated_bytes=GIB, reserved_bytes=2 * GIB),)
    return replace(PROFILE, profile_id=profile_id, curve=curve)


def plan(*verdicts: Verdict, accumulation: AccumulationPlan | None = None) -> PlanJobResponse:
    names = [f"gpu-{i}" for i in range(len(verdicts))]
    return PlanJobResponse(
        estimate=ESTIMATE,
        batch_sizes=tuple(recommendation(name, 170) for name in names),
        accumulation=accumulation,
        placements=tuple(map(placement, names, verdicts)),
    )


@dataclass(frozen=True)
class CannedError(Exception):
    """What a canned answer raises to end the call with a status."""

    code: Any
    message: str = "told so"
    details: Sequence[Message] = ()


Answer = Callable[[Any], Any]


def _gpu_page(request: Any) -> ListGpuTypesResponse:
    everything = [
        GpuType(
            name=f"gpu-{i}", total_bytes=16 * GIB, usable_bytes=15 * GIB, compute_capability="8.0"
        )
        for i in range(5)
    ]
    start, size = int(request.page_token or 0), request.page_size or 2
    after = str(start + size) if start + size < len(everything) else ""
    page = tuple(everything[start : start + size])
    return ListGpuTypesResponse(gpu_types=page, next_page_token=after)


def _profile_page(request: Any) -> ListProfilesResponse:
    everything = [replace(PROFILE, profile_id=f"p-{i}") for i in (5, 4, 3, 2, 1)]
    start, size = int(request.page_token or 0), request.page_size or 2
    after = str(start + size) if start + size < len(everything) else ""
    page = tuple(everything[start : start + size])
    return ListProfilesResponse(profiles=page, next_page_token=after)


@dataclass
class FakePlanner:
    """Canned answers by method, and the requests that came."""

    answers: dict[str, Answer] = field(
        default_factory=lambda: {
            "EstimateMemory": lambda request: EstimateMemoryResponse(estimate=ESTIMATE),
            "RecommendBatchSize": lambda request: RecommendBatchSizeResponse(
                batch_sizes=(recommendation("gpu-0", 170),)
            ),
            "PlanAccumulation": lambda request: PlanAccumulationResponse(accumulation=ACCUMULATION),
            "PlanJob": lambda request: plan(
                Verdict.FITS,
                Verdict.DOES_NOT_FIT,
                accumulation=ACCUMULATION if request.global_batch_size else None,
            ),
            "GetProfile": lambda request: GetProfileResponse(profile=stored(request.profile_id)),
            "ListProfiles": _profile_page,
            "ListGpuTypes": _gpu_page,
            "ListModels": lambda request: ListModelsResponse(
                models=(ModelInfo(name="torchvision/resnet50", library="torchvision"),)
            ),
        }
    )
    requests: list[Any] = field(default_factory=list)
    seconds_left: list[float] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    """The name in the certificate of who called, and the token that came; empty where none did."""
    tokens: list[str] = field(default_factory=list)
    target: str = ""
    health: health.HealthServicer = field(default_factory=health.HealthServicer)

    def fail(self, method: str, code: Any, *details: Message, message: str = "told so") -> None:
        """Let a method fail from now on."""

        def answer(request: Any) -> NoReturn:
            raise CannedError(code, message, details)

        self.answers[method] = answer

    def __getattr__(self, method: str) -> Any:
        """The servicer's methods."""
        if not method[0].isupper():
            raise AttributeError(method)
        return lambda request, context: self._answer(method, request, context)

    def _answer(self, method: str, message: Message, context: Any) -> Any:
        request = from_proto(message)
        self.requests.append(request)
        self.seconds_left.append(context.time_remaining())
        self.callers += [n.decode() for n in context.auth_context().get("x509_common_name", [b""])]
        self.tokens.append(dict(context.invocation_metadata()).get("authorization", ""))
        if method == "ProfileMemory":
            return self._stream(request, context)
        try:
            return to_proto(self.answers[method](request))
        except CannedError as failure:
            self._end(failure, context)

    def _stream(self, request: Any, context: Any) -> Iterator[Message]:
        try:
            yield from map(to_proto, self.answers["ProfileMemory"](request))
        except KeyError:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no profiler here")
        except CannedError as failure:
            self._end(failure, context)

    def _end(self, failure: CannedError, context: Any) -> NoReturn:
        status = status_pb2.Status(code=failure.code.value[0], message=failure.message)
        for detail in failure.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError


@contextmanager
def serving(
    planner: FakePlanner, *, credentials: Any = None, address: str = "127.0.0.1:0"
) -> Iterator[FakePlanner]:
    """The planner behind a real server, on a free port of this host where no other is named."""
    pings = (("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),)
    server = grpc.server(ThreadPoolExecutor(4), options=pings)
    planner_pb2_grpc.add_MemoryPlannerServicer_to_server(planner, server)
    health_pb2_grpc.add_HealthServicer_to_server(planner.health, server)
    planner.health.set("", health_pb2.HealthCheckResponse.SERVING)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port("localhost:0", credentials)
    server.start()
    host = address.partition(":")[0] if credentials is None else "localhost"
    planner.target = f"{host}:{port}"
    try:
        yield planner
    finally:
        server.stop(0).wait()


def bad_request(**violations: str) -> Message:
    """google.rpc.BadRequest; dots in field paths are written `__`."""
    request = error_details_pb2.BadRequest()
    for path, text in violations.items():
        request.field_violations.add(field=path.replace("__", "."), description=text)
    return request
