"""Profiles that other servers measure.

    names = ("gpu-0:50051", "gpu-1:50051")
    remotes = Remotes(find=lambda: [Remote(Endpoint(target=name)) for name in names])
    for event in remotes.profile(asked, call): ...

The one with the fewest profiles of this server comes first. Where one is unhealthy, busy, without
such a device, or dies in the middle, the next is asked, from the start.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from memplan.channel import open_channel
from memplan.endpoint import Endpoint
from memplan.types import ProfileMemoryRequest, ProfileMemoryResponse
from memplan.v1 import planner_pb2
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan.wire import from_proto, to_proto
from memplan_server.calls import Call
from memplan_server.errors import MemplanError, NoDevice, Relayed, Unreachable
from memplan_server.profiling import conversion
from memplan_server.profiling.interface import Asked

__all__ = ["FORWARDED", "Remote", "Remotes"]

log = logging.getLogger(__name__)

FORWARDED = "memplan-forwarded"
"""Metadata key that keeps a profiler from forwarding further."""
HEALTH_TIMEOUT_S = 3.0
OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),  # one that is cut off is noticed within a profile
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # one that is back is used again soon
)
SERVICE = planner_pb2.DESCRIPTOR.services_by_name["MemoryPlanner"].full_name
_Code = grpc.StatusCode
_ELSEWHERE = {
    _Code.RESOURCE_EXHAUSTED,
    _Code.UNAVAILABLE,
    _Code.FAILED_PRECONDITION,
    _Code.UNIMPLEMENTED,
    _Code.CANCELLED,  # it stops; our own cancellation is looked for first
}


class _Elsewhere(Exception):
    """This profiler cannot do it now; why."""

    def __init__(self, error: MemplanError) -> None:
        super().__init__(str(error))
        self.error = error


class Remote:
    """One profiler."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Does not connect before it is asked. Raises OSError and ValueError for its files."""
        self.target = endpoint.target
        self.in_flight = 0
        """Profiles of this server that it has; the owner counts."""
        self._channel = open_channel(endpoint, OPTIONS)

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """What it streams. Raises _Elsewhere, or what ends the profile for good."""
        self._check_health(call)
        stub: Any = MemoryPlannerStub  # generated: it has no annotations
        stream = stub(self._channel).ProfileMemory(
            to_proto(_request(asked)),
            timeout=call.remaining_s(),
            metadata=((FORWARDED, "1"),),
        )
        with call.when_cancelled(stream.cancel):
            try:
                for message in stream:
                    yield from_proto(message)
            except grpc.RpcError as error:
                call.check()
                raise self._meaning(error) from None
            finally:
                stream.cancel()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _check_health(self, call: Call) -> None:
        remaining = call.remaining_s()
        timeout = HEALTH_TIMEOUT_S if remaining is None else min(HEALTH_TIMEOUT_S, remaining)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        try:
            status = health_pb2_grpc.HealthStub(self._channel).Check(request, timeout=timeout)
        except grpc.RpcError as error:
            call.check()
            raise _Elsewhere(Unreachable(f"{self.target}: {error.code().name}")) from None
        if status.status != health_pb2.HealthCheckResponse.SERVING:
            raise _Elsewhere(Unreachable(f"{self.target}: NOT_SERVING"))

    def _meaning(self, error: Any) -> Exception:
        code = error.code()
        status = rpc_status.from_call(error)
        packed = status.SerializeToString() if status is not None else b""
        relayed = Relayed(code.value[0], error.details() or code.name, packed)
        if code is _Code.FAILED_PRECONDITION:
            return _Elsewhere(NoDevice(relayed.message))
        if code is _Code.RESOURCE_EXHAUSTED:
            return _Elsewhere(relayed)
        if code in _ELSEWHERE:
            return _Elsewhere(Unreachable(f"{self.target}: {code.name}"))
        return relayed


@dataclass(kw_only=True)
class Remotes:
    """Several profilers. A `Profiler`."""

    find: Callable[[], Sequence[Remote]]
    """Those there are now, the same object for the same server."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turn: Iterator[int] = field(default_factory=itertools.count)

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """See `Profiler.profile`."""
        errors: list[MemplanError] = []
        tried: set[Remote] = set()
        while (remote := self._take(tried)) is not None:
            tried.add(remote)
            try:
                yield from remote.profile(asked, call)
                return
            except _Elsewhere as elsewhere:
                log.warning("profiler %s: %s", remote.target, elsewhere)
                errors.append(elsewhere.error)
            finally:
                self._give_back(remote)
            call.check()
            yield conversion.queued()
        raise _most_telling(errors)

    def _take(self, tried: set[Remote]) -> Remote | None:
        """The one with the least to do of those not tried; of equals they take turns."""
        remotes = self.find()
        with self._lock:
            first = next(self._turn) % len(remotes)
            in_turn = [*remotes[first:], *remotes[:first]]
            left = [remote for remote in in_turn if remote not in tried]
            if not left:
                return None
            chosen = min(left, key=lambda remote: remote.in_flight)
            chosen.in_flight += 1
            return chosen

    def _give_back(self, remote: Remote) -> None:
        with self._lock:
            remote.in_flight -= 1


def _most_telling(errors: Sequence[MemplanError]) -> MemplanError:
    """One that is busy could do it later, one that is away perhaps, one without a device never."""
    busy = next((e for e in errors if isinstance(e, Relayed)), None)
    if busy is not None:
        return busy
    away = [str(e) for e in errors if isinstance(e, Unreachable)]
    if away:
        return Unreachable(f"No profiler answers ({', '.join(away)}). Try again later.")
    return errors[0]


def _request(asked: Asked) -> ProfileMemoryRequest:
    return ProfileMemoryRequest(
        job=asked.job,
        step_count=asked.step_count,
        warmup_step_count=asked.warmup_step_count,
        memory_limit_bytes=asked.memory_limit_bytes,
        time_limit=timedelta(seconds=asked.time_limit_s),
        device_type=asked.device_type,
        gpu_type=asked.gpu_type,
        wait_for_gpu=asked.wait_for_gpu,
        find_batch_size=asked.find_batch_size,
    )
