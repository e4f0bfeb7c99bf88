"""What happens around every call: exceptions become statuses, and calls are counted and logged.

The core raises `memplan_server.errors`; here, and only here, they are mapped to status codes with
details (google.rpc). Anything else is a defect: the caller gets INTERNAL and an incident id, the
log gets the traceback under the same id.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
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
    MeasurementFailure,
    MemplanError,
    NoDevice,
    NotAllowed,
    QuotaExceeded,
    Relayed,
    StoreFailure,
    TimeLimitExceeded,
    Unauthenticated,
    UnknownName,
    Unreachable,
    Violation,
    WorkerFailure,
)
from memplan_server.metrics import Metrics

__all__ = ["ErrorInterceptor", "Interceptor", "ObservingInterceptor", "StreamInterceptor"]

log = logging.getLogger(__name__)

DOMAIN = "memplan"
MOST_DETAIL_BYTES = 4_000
"""gRPC clients refuse more than 8 KiB of metadata, in which details travel as base64."""

LONGEST_DESCRIPTION = 1_000

Behaviour = Callable[[Any, Any], Any]

_CODES: tuple[tuple[type[MemplanError], Any, str], ...] = (
    (InvalidJob, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    (UnknownName, grpc.StatusCode.NOT_FOUND, "UNKNOWN_NAME"),
    (QuotaExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
    (LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (NotAllowed, grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"),
    (TimeLimitExceeded, grpc.StatusCode.DEADLINE_EXCEEDED, "TIME_LIMIT_EXCEEDED"),
    (Cancelled, grpc.StatusCode.CANCELLED, "CANCELLED"),
    (NoDevice, grpc.StatusCode.FAILED_PRECONDITION, "NO_DEVICE"),
    (Unreachable, grpc.StatusCode.UNAVAILABLE, "NO_PROFILER"),
    (StoreFailure, grpc.StatusCode.UNAVAILABLE, "NO_PROFILE_STORE"),
    (MeasurementFailure, grpc.StatusCode.ABORTED, "MEASUREMENT_FAILED"),
)


class Interceptor:
    """Wraps the behaviour of methods with one request, once for each method.

    Those that hold no thread (the stream of the health service) are left as they are: wrapped, each
    would hold one for as long as its client lives.
    """

    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call, its behaviour wrapped (grpc.ServerInterceptor)."""
        handler = continuation(details)
        if handler is None or handler.request_streaming or _holds_no_thread(handler):
            return handler
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            wrapped = self._wrapped[details.method] = self._replaced(details.method, handler)
        return wrapped

    def _replaced(self, method: str, handler: Any) -> Any:
        if handler.unary_unary is not None:
            return handler._replace(unary_unary=self.wrap(method, handler.unary_unary))
        return handler._replace(unary_stream=self.wrap_stream(method, handler.unary_stream))

    def wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        """What to call in place of `behaviour`, which answers once."""
        raise NotImplementedError

    def wrap_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        """What to call in place of `behaviour`, which answers with a stream."""
        raise NotImplementedError


class StreamInterceptor:
    """Gives streams threads of their own: an open stream holds one for as long as the client likes,
    or as a job runs, and must not take it from calls. Those above the number of threads wait.

    Must be the outermost: what wraps a behaviour hides its thread pool.
    """

    def __init__(self, threads: int, answer_threads: int) -> None:
        """`threads` for streams from clients, `answer_threads` for streams to them."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="memplan-stream")
        self._answers = ThreadPoolExecutor(answer_threads, thread_name_prefix="memplan-profile")

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call (grpc.ServerInterceptor)."""
        handler = continuation(details)
        if handler is None or not handler.response_streaming or _holds_no_thread(handler):
            return handler
        if handler.stream_stream is not None:
            return handler._replace(stream_stream=_in_pool(handler.stream_stream, self._pool))
        return handler._replace(unary_stream=_in_pool(handler.unary_stream, self._answers))


def _holds_no_thread(handler: Any) -> bool:
    return bool(getattr(handler.unary_stream, "experimental_non_blocking", False))


def _in_pool(behaviour: Behaviour, pool: ThreadPoolExecutor) -> Behaviour:
    pooled = partial(behaviour)
    pooled.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return pooled


class ErrorInterceptor(Interceptor):
    """Answers exceptions with statuses."""

    def wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `Interceptor.wrap`."""

        def answer(request: Any, context: Any) -> Any:
            try:
                return behaviour(request, context)
            except Exception as error:
                if context.code() is not None:  # the behaviour has aborted the call itself
                    raise
                _abort(context, method, error)

        return answer

    def wrap_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `Interceptor.wrap_stream`."""

        def answer(request: Any, context: Any) -> Iterator[Any]:
            try:
                yield from behaviour(request, context)
            except Exception as error:
                if context.code() is not None:  # the behaviour has aborted the call itself
                    raise
                _abort(context, method, error)

        return answer


class ObservingInterceptor(Interceptor):
    """Counts, times and logs calls."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `Interceptor.wrap`."""
        name = method.removeprefix("/")
        observed = self._observer(name)

        def answer(request: Any, context: Any) -> Any:
            with observed(context):
                return behaviour(request, context)

        return answer

    def wrap_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `Interceptor.wrap_stream`."""
        observed = self._observer(method.removeprefix("/"))

        def answer(request: Any, context: Any) -> Iterator[Any]:
            with observed(context):
                yield from behaviour(request, context)

        return answer

    def _observer(self, name: str) -> Callable[[Any], contextlib.AbstractContextManager[None]]:
        in_flight = self._metrics.requests_in_flight
        self._metrics.requests.labels(name, "INTERNAL")  # rate() does not see a sample come
        answered_well = self._metrics.requests.labels(name, "OK").inc
        took = self._metrics.request_seconds.labels(name).observe

        @contextlib.contextmanager
        def observed(context: Any) -> Iterator[None]:
            in_flight.inc()
            started = time.perf_counter()
            try:
                yield
                if context.code() is None:
                    answered_well()
                else:
                    self._count(name, context)
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

        return observed

    def _count(self, name: str, context: Any) -> None:
        self._metrics.requests.labels(name, _code_name(context, "UNKNOWN")).inc()


def _code_name(context: Any, unset: str) -> str:
    code = context.code()
    return unset if code is None else str(code.name)


def _abort(context: Any, method: str, error: Exception) -> NoReturn:
    """End the call with the status that `error` stands for."""
    if isinstance(error, Relayed):
        _pass_on(context, error)
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


def _pass_on(context: Any, error: Relayed) -> NoReturn:
    """End the call as another server ended it."""
    status = status_pb2.Status.FromString(error.status)
    if not error.status:
        status = status_pb2.Status(code=error.code, message=error.message)
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
    if isinstance(error, Unauthenticated):
        info.reason = error.reason
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
    details: list[Message] = []
    if isinstance(error, QuotaExceeded):
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=f"{error.tenant}/{error.quota}", description=str(error))
        details.append(failure)
    if isinstance(error, LimitExceeded) and error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(retry)
    return details


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
