"""The gRPC service: bytes to a request, the planner, the response to bytes.

Methods take and give bytes, because equal requests have equal answers: an answer given once is kept
under the bytes of its request, and needs neither parsing nor planning the next time. Answers that
say what was measured hold as long as no profile is added; those about profiles are not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from memplan import types
from memplan.v1 import planner_pb2
from memplan.wire import to_proto
from memplan_server.caches import LruCache
from memplan_server.calls import Call
from memplan_server.core import Planner
from memplan_server.errors import InvalidJob, LimitExceeded
from memplan_server.metrics import Metrics
from memplan_server.profiling.remote import FORWARDED
from memplan_server.validation import read, violations_of

__all__ = ["SERVICE_NAME", "PlannerService"]

SERVICE_NAME: str = planner_pb2.DESCRIPTOR.services_by_name["MemoryPlanner"].full_name
RETRY_AFTER_S = 1.0
LONGEST_STREAM_S = 86_400.0
"""A profile may wait long in its queue; this only keeps the number small."""
ANSWER = "answer"
BUSY = "Nothing was measured: the server has as many profiles under way as it may."
ENTRY_BYTES = 500
"""What Python takes for one kept answer besides the bytes of request and response."""
NOTE_BYTES = 500
"""What it takes for what the metrics get to know of one GPU."""

Method = Callable[[Any, Call], Any]
Key = tuple[str, bytes, Hashable]
"""Method, request, version of what is known where the answer depends on it."""
NEVER_KEPT = ("GetProfile", "ListProfiles")
KNOWN_FOR_GOOD = ("ListModels",)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A serialised response, and what giving it adds to the metrics."""

    data: bytes
    notes: tuple[Callable[[], None], ...]
    lasting: bool
    """Whether the same request gets it again."""


class PlannerService:
    """`memplan.v1.MemoryPlanner` over a `Planner`."""

    def __init__(
        self,
        planner: Planner,
        metrics: Metrics,
        *,
        knowledge_version: Callable[[], Hashable],
        answer_cache_bytes: int,
        max_concurrent_calls: int,
        call_time_limit_s: float,
        max_concurrent_profiles: int = 32,
        caller: Callable[[Any], str] | None = None,
    ) -> None:
        """At most `max_concurrent_calls` are worked on at once, each for `call_time_limit_s` at
        most; kept answers do not count. Profiles are counted apart, waiting ones included.
        `knowledge_version` changes with what was measured and learned. `caller` names who makes a
        call with a grpc.ServicerContext: profiles are fair between callers. Default: the host."""
        self._planner = planner
        self._caller = caller or _host
        self._free_for_profiles = threading.BoundedSemaphore(max_concurrent_profiles)
        self._metrics = metrics
        self._knowledge_version = knowledge_version
        self._answers: LruCache[Key, _Answer] = LruCache(answer_cache_bytes, _weigh)
        self._call_time_limit_s = call_time_limit_s
        self._max_concurrent_calls = max_concurrent_calls
        self._free = threading.BoundedSemaphore(max_concurrent_calls)
        self._methods: dict[str, tuple[type[Message], Method]] = {
            "EstimateMemory": (planner_pb2.EstimateMemoryRequest, planner.estimate_memory),
            "RecommendBatchSize": (
                planner_pb2.RecommendBatchSizeRequest,
                planner.recommend_batch_size,
            ),
            "PlanAccumulation": (planner_pb2.PlanAccumulationRequest, planner.plan_accumulation),
            "PlanJob": (planner_pb2.PlanJobRequest, planner.plan_job),
            "ListGpuTypes": (planner_pb2.ListGpuTypesRequest, planner.list_gpu_types),
            "ListModels": (planner_pb2.ListModelsRequest, planner.list_models),
            "GetProfile": (planner_pb2.GetProfileRequest, planner.get_profile),
            "ListProfiles": (planner_pb2.ListProfilesRequest, planner.list_profiles),
        }
        metrics.cache_bytes.labels(ANSWER).set_function(lambda: self._answers.held_bytes)

    def handlers(self) -> dict[str, Any]:
        """A grpc.RpcMethodHandler for each method of the service."""
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                partial(self._answer_anew, name) if name in NEVER_KEPT else self._behaviour(name)
            )
            for name in self._methods
        }
        handlers["ProfileMemory"] = grpc.unary_stream_rpc_method_handler(self._profile_memory)
        return handlers

    def _behaviour(self, name: str) -> Callable[[bytes, Any], bytes]:
        hit, miss = (self._metrics.cache_requests.labels(ANSWER, r).inc for r in ("hit", "miss"))
        kept = self._answers.get
        version = int if name in KNOWN_FOR_GOOD else self._knowledge_version

        def answer(data: bytes, context: Any) -> bytes:
            key = (name, data, version())
            found = kept(key)
            if found is None:
                miss()
                found = self._make(name, data, context)
                if found.lasting:
                    self._answers.put(key, found)
            else:
                hit()
            return _given(found)

        return answer

    def _answer_anew(self, name: str, data: bytes, context: Any) -> bytes:
        return self._make(name, data, context).data

    def _make(self, name: str, data: bytes, context: Any) -> _Answer:
        """Convert, call, convert."""
        message_class, method = self._methods[name]
        with self._admitted():
            call = _call(context, self._call_time_limit_s)
            request = _request(message_class, data)
            if not _is_to_be_measured(request):
                return self._answer(request, method(request, call))
            if not self._free_for_profiles.acquire(blocking=False):
                plan = method(replace(request, measurement_budget=None), call)
                plan = replace(plan, measurement_notes=(BUSY,))
                return self._answer(request, plan, lasting=False)
        try:
            return self._measured_plan(request, context)
        finally:
            self._free_for_profiles.release()

    def _measured_plan(self, request: types.PlanJobRequest, context: Any) -> _Answer:
        """A plan that may take as long as a profile, and counts as one."""
        assert request.measurement_budget is not None
        longest_s = self._call_time_limit_s + request.measurement_budget.total_seconds()
        call = _call(context, longest_s)
        response = self._planner.plan_job(request, call, peer=self._caller(context))
        return self._answer(request, response, lasting=False)

    def _answer(self, request: object, response: object, *, lasting: bool = True) -> _Answer:
        serialised = to_proto(response).SerializeToString(deterministic=True)
        notes = self._metrics.recent_jobs.notes(request, response)
        return _Answer(serialised, (*self._verdicts(response), *notes), lasting)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """A place among the calls worked on at once. Raises LimitExceeded when there is none."""
        if not self._free.acquire(blocking=False):
            limit = self._max_concurrent_calls
            message = f"The server works on {limit} calls already, as many as it may. Try again."
            raise LimitExceeded(message, RETRY_AFTER_S)
        try:
            yield
        finally:
            self._free.release()

    def _profile_memory(self, data: bytes, context: Any) -> Iterator[bytes]:
        """Every event as it comes; a caller that goes away cancels."""
        if not self._free_for_profiles.acquire(blocking=False):
            message = "The server has as many profiles under way as it may. Try again."
            raise LimitExceeded(message, RETRY_AFTER_S)
        try:
            call = _call(context, LONGEST_STREAM_S)
            request = _request(planner_pb2.ProfileMemoryRequest, data)
            forwarded = any(key == FORWARDED for key, _ in context.invocation_metadata())
            events = self._planner.profile_memory(
                request, call, peer=self._caller(context), forwarded=forwarded
            )
            for event in events:
                yield to_proto(event).SerializeToString()
        finally:
            self._free_for_profiles.release()

    def _verdicts(self, response: object) -> tuple[Any, ...]:
        """What to call to count the verdicts of a response."""
        if not isinstance(response, types.PlanJobResponse):
            return ()
        verdicts = self._metrics.verdicts
        return tuple(
            verdicts.labels(p.gpu.gpu_type, p.verdict.name).inc for p in response.placements
        )


def _is_to_be_measured(request: object) -> bool:
    return isinstance(request, types.PlanJobRequest) and request.measurement_budget is not None


def _given(answer: _Answer) -> bytes:
    """What is sent, once the metrics know of it."""
    for note in answer.notes:
        note()
    return answer.data


def _weigh(key: Key, answer: _Answer) -> int:
    return len(key[1]) + len(answer.data) + ENTRY_BYTES + NOTE_BYTES * len(answer.notes)


def _call(context: Any, longest_s: float) -> Call:
    """The caller's patience, not above `longest_s`."""
    call = Call(min(context.time_remaining(), longest_s))
    if not context.add_callback(call.cancel):
        call.cancel()
    return call


def _request(message_class: type[Message], data: bytes) -> Any:
    request, violations = read(message_class, data)
    if violations:
        raise InvalidJob(*violations, *violations_of(request))
    return request


def _host(context: Any) -> str:
    """`ipv4:10.0.0.7:4242` without the port, which differs from connection to connection."""
    peer: str = context.peer()
    kind, _, address = peer.partition(":")
    return address.rpartition(":")[0] if kind in ("ipv4", "ipv6") else peer
