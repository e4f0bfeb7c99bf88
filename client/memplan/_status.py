"""A failed call, as an exception of `memplan.errors`.

try:
    stub.PlanJob(request, timeout=60)
except grpc.RpcError as error:
    raise to_error(error, "PlanJob") from error
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from memplan.errors import (
    BY_CODE,
    InvalidRequestError,
    LimitExceededError,
    MemplanError,
    ServerError,
    UnavailableError,
    UnknownNameError,
    Violation,
)

__all__ = ["to_error"]

_DETAILS_KEY = "grpc-status-details-bin"
_NO_METHOD = "Method not found!"
"""What gRPC says in the name of a server that has no such method."""
_DETAIL_TYPES: tuple[type[Message], ...] = (
    error_details_pb2.BadRequest,
    error_details_pb2.ErrorInfo,
    error_details_pb2.RequestInfo,
    error_details_pb2.RetryInfo,
)


def to_error(error: grpc.RpcError, method: str) -> MemplanError:
    """The exception for a failed call of `method`, with what the server's details say."""
    code, message = error.code().name, error.details() or error.code().name
    if message == _NO_METHOD:
        message = f"The server does not offer {method}: it has another version, or does without it."
    details = _details(error)
    cls = BY_CODE[code]
    if cls is InvalidRequestError:
        return InvalidRequestError(message, violations=_violations(details), code=code)
    if cls is UnknownNameError:
        return UnknownNameError(message, code=code, **_name(details))
    if cls is LimitExceededError:
        return LimitExceededError(message, retry_after=_retry_after(details), code=code)
    if cls is UnavailableError:
        return UnavailableError(message, answered="ErrorInfo" in details, code=code)
    if cls is ServerError:
        request_info = details.get("RequestInfo")
        incident = request_info.request_id if request_info is not None else ""
        return ServerError(message, incident_id=incident, code=code)
    return cls(message, code=code)


def _details(error: Any) -> dict[str, Any]:
    """google.rpc details by message name; what this client does not know is left out."""
    data = next((v for k, v in error.trailing_metadata() or () if k == _DETAILS_KEY), b"")
    found: dict[str, Any] = {}
    try:
        for packed in status_pb2.Status.FromString(data).details:
            for detail_type in _DETAIL_TYPES:
                detail = detail_type()
                if packed.Unpack(detail):
                    found[detail_type.DESCRIPTOR.name] = detail
    except DecodeError:  # not from a memplan server; the status itself still counts
        return {}
    return found


def _violations(details: dict[str, Any]) -> list[Violation]:
    if "BadRequest" not in details:
        return []
    return [Violation(v.field, v.description) for v in details["BadRequest"].field_violations]


def _name(details: dict[str, Any]) -> dict[str, Any]:
    metadata = details["ErrorInfo"].metadata if "ErrorInfo" in details else {}
    nearest = tuple(filter(None, metadata.get("nearest", "").split(", ")))
    return {"kind": metadata.get("kind", ""), "name": metadata.get("name", ""), "nearest": nearest}


def _retry_after(details: dict[str, Any]) -> float | None:
    if "RetryInfo" not in details:
        return None
    delay = details["RetryInfo"].retry_delay
    return float(delay.seconds + delay.nanos / 1e9)
