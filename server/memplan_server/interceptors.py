"""What happens around every call: exceptions become statuses, and calls are counted and logged.

The core raises `memplan_server.errors`; here, and only here, they are mapped to status codes with
details (google.rpc). Anything else is a defect: the caller gets INTERNAL and an incident id, the
log gets the traceback under the same id.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from memplan_server.errors import (
    Cancelled,
    InvalidJob,
    LimitExceeded,
    MemplanError,
    TimeLimitExceeded,
    UnknownName,
    Violation,
    WorkerFailure,
)
from memplan_server.metrics import Metrics

__all__ = ["ErrorInterceptor", "ObservingInterceptor", "StreamInterceptor"]

log = logging.getLogger(__name__)

DOMAIN = "memplan"
MOST_DETAIL_BYTES = 4_000
"""gRPC clients refuse more than 8 KiB of metadata, in which details travel as base64."""

LONGEST_DESCRIPTION = 1_000

Behaviour = Callable[[Any, Any], Any]

_CODES: tuple[tuple[type[MemplanError], Any, str], ...] = (
    (InvalidJob, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    (UnknownName, grpc.StatusCode.NOT_FOUND, "UNKNOWN_NAME"),
    (LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    (TimeLimitExceeded, grpc.StatusCode.DEADLINE_EXCEEDED, "TIME_LIMIT_EXCEEDED"),
    (Cancelled, grpc.StatusCode.CANCELLED, "CANCELLED"),
)


class _Interceptor:
    """Wraps the behaviour of unary methods, once for each method."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call, its behaviour wrapped (grpc.ServerInterceptor)."""
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            behaviour = self.wrap(details.method, handler.unary_unary)
            wrapped = self._wrapped[details.method] = handler._replace(unary_unary=behaviour)
        return wrapped

    def wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        """What to call in place of `behaviour`."""
        raise NotImplementedError


class StreamInterceptor:
    """Gives streams from clients threads of their own: an open stream holds one for as long as the
    client likes, and must not take it from calls. Those above `threads` wait."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="memplan-stream")

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call (grpc.ServerInterceptor)."""
        handler = continuation(details)
        if handler is None or handler.stream_stream is None:
            return handler
        behaviour = partial(handler.stream_stream)
        behaviour.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        return handler._replace(stream_stream=behaviour)


class ErrorInterceptor(_Interceptor):
    """Answers exceptions with statuses."""

    def wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `_Interceptor.wrap`."""

        def answer(request: Any, context: Any) -> Any:
            try:
                return behaviour(request, context)
            except Exception as error:
                if context.code() is not None:  # the behaviour has aborted the call itself
                    raise
                _abort(context, method, error)

        return answer


class ObservingInterceptor(_Interceptor):
    """Counts, times and logs calls."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `_Interceptor.wrap`."""
        name = method.removeprefix("/")
        in_flight = self._metrics.requests_in_flight
        answered_well = self._metrics.requests.labels(name, "OK").inc
        took = self._metrics.request_seconds.labels(name).observe

        def answer(request: Any, context: Any) -> Any:
            in_flight.inc()
            started = time.perf_counter()
            try:
                response = behaviour(request, context)
                if context.code() is None:
                    answered_well()
                else:
                    self._count(name, context)
                return response
            except BaseException:
                self._count(name, context)
                raise
            finally:
                in_flight.dec()
                seconds = time.perf_counter() - started
                took(seconds)
                if log.isEnabledFor(logging.DEBUG):
                    code = _code_name(context, "OK")
                    log.debug("%s %s in %.1f ms for %s", name, code, seconds * 1e3, context.peer())

        return answer

    def _count(self, name: str, context: Any) -> None:
        self._metrics.requests.labels(name, _code_name(context, "UNKNOWN")).inc()


def _code_name(context: Any, unset: str) -> str:
    code = context.code()
    return unset if code is None else str(code.name)


def _abort(context: Any, method: str, error: Exception) -> NoReturn:
    """End the call with the status that `error` stands for."""
    for kind, code, reason in _CODES:
        if isinstance(error, kind):
            details = [_info(reason, error), *_details(error)]
            _end(context, code, _message(error), details)
    incident = uuid.uuid4().hex
    failure = error if isinstance(error, WorkerFailure) else None
    log.error("incident %s in %s: %s", incident, method, failure or "", exc_info=error)
    message = f"The server has a defect and could not answer; its log tells more of {incident}."
    request_info = error_details_pb2.RequestInfo(request_id=incident)
    _end(context, grpc.StatusCode.INTERNAL, message, [_info("INTERNAL", error), request_info])


def _end(context: Any, code: Any, message: str, details: Sequence[Message]) -> NoReturn:
    log.info("%s: %s", code.name, message)
    status = status_pb2.Status(code=code.value[0], message=message, details=map(_packed, details))
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _info(reason: str, error: Exception) -> Any:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if isinstance(error, UnknownName):
        info.metadata.update(kind=error.kind, name=error.name, nearest=", ".join(error.nearest))
    return info


def _message(error: MemplanError) -> str:
    """The error in a sentence or two; of violations the first one, as the details have all."""
    if not isinstance(error, InvalidJob):
        return str(error)
    first, count = error.violations[0], len(error.violations)
    said = first.description[:LONGEST_DESCRIPTION]
    text = f"{first.field}: {said}" if first.field else said
    return text if count == 1 else f"{text} ({count:,} violations; the details list them.)"


def _details(error: MemplanError) -> list[Message]:
    if isinstance(error, InvalidJob):
        return [_bad_request(error.violations)]
    if isinstance(error, LimitExceeded) and error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        return [retry]
    return []


def _bad_request(violations: Sequence[Violation]) -> Any:
    """As many violations as travel in metadata; the last entry counts the others."""
    request = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        entry = request.field_violations.add(
            field=violation.field, description=violation.description[:LONGEST_DESCRIPTION]
        )
        if index and request.ByteSize() > MOST_DETAIL_BYTES:
            entry.field = ""
            entry.description = f"{len(violations) - index:,} further violations are not listed."
            break
    return request
