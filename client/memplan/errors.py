"""What can go wrong, as the client says it.

    MemplanError
    ├── InvalidRequestError       the request breaks a rule; `violations` has every place
    │   └── JobFileError          a job file cannot be read or has mistakes
    ├── CaptureError              a module cannot be captured; `location` has the line of its code
    ├── UnknownNameError          no such model, GPU type or profile; `nearest` has names like it
    ├── LimitExceededError        too much at once (`retry_after` says when to retry), or too large
    ├── DeadlineExceededError     not done in the time given
    ├── CancelledError            the call was cancelled
    ├── UnsupportedError          the server does not offer this, or has no such device
    ├── AccessDeniedError         the server does not let this client in
    ├── UnavailableError          the server, or a profiler behind it, cannot be reached
    └── ServerError               a defect of the server, or a process of it crashed; `incident_id`
                                  finds it in the server's log

The table from status codes to classes is `BY_CODE`. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "AccessDeniedError",
    "CancelledError",
    "CaptureError",
    "DeadlineExceededError",
    "InvalidRequestError",
    "JobFileError",
    "LimitExceededError",
    "MemplanError",
    "ServerError",
    "UnavailableError",
    "UnknownNameError",
    "UnsupportedError",
    "Violation",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One place of a request that breaks a rule."""

    field: str
    """Path in the request, `job.model.layer_stack.layers[3].linear`; empty for the whole of it."""
    description: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class MemplanError(Exception):
    """Base of everything that memplan raises for its users."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """Name of the gRPC status code, `NOT_FOUND`; empty when no call was made."""


class InvalidRequestError(MemplanError, ValueError):
    """The request breaks a rule."""

    def __init__(
        self, message: str = "", *, violations: Sequence[Violation] = (), code: str = ""
    ) -> None:
        super().__init__(message or "; ".join(map(str, violations)), code=code)
        self.violations = tuple(violations)
        """Every violation; none only when the server names no place."""


class JobFileError(InvalidRequestError):
    """A job file cannot be read or has mistakes."""


class CaptureError(MemplanError, ValueError):
    """A module, its inputs or its optimizer cannot be described as data."""

    def __init__(self, message: str, *, location: str = "") -> None:
        super().__init__(f"{location}: {message}" if location else message)
        self.location = location
        """File, line and module of the code that it is about; empty where there is none."""


class UnknownNameError(MemplanError, LookupError):
    """No such model, GPU type or profile."""

    def __init__(
        self,
        message: str,
        *,
        kind: str = "",
        name: str = "",
        nearest: Sequence[str] = (),
        code: str = "",
    ) -> None:
        super().__init__(message, code=code)
        self.kind = kind
        """`model`, `GPU type` or `profile`."""
        self.name = name
        """The name that was asked for."""
        self.nearest = tuple(nearest)
        """Names like it, best first."""


class LimitExceededError(MemplanError):
    """Too much at once, or larger than the server allows."""

    def __init__(self, message: str, *, retry_after: float | None = None, code: str = "") -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after
        """Seconds after which the same call may succeed; None when it never will."""


class DeadlineExceededError(MemplanError, TimeoutError):
    """Not done in the time that the caller or the server gives."""


class CancelledError(MemplanError):
    """The call was cancelled before the answer was ready."""


class UnsupportedError(MemplanError):
    """The server does not offer this method, or has no device that it needs."""


class AccessDeniedError(MemplanError):
    """The server does not let this client in, or not do this."""


class UnavailableError(MemplanError, ConnectionError):
    """The server, or a profiler behind it, cannot be reached, also after retries."""

    def __init__(self, message: str, *, answered: bool = False, code: str = "") -> None:
        super().__init__(message, code=code)
        self.answered = answered
        """Whether a server was reached and says so of its profilers."""


class ServerError(MemplanError):
    """A defect of the server, or a process of it that crashed."""

    def __init__(self, message: str, *, incident_id: str = "", code: str = "") -> None:
        super().__init__(message, code=code)
        self.incident_id = incident_id
        """What to look for in the server's log; empty when the server names none."""


BY_CODE: dict[str, type[MemplanError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "NOT_FOUND": UnknownNameError,
    "RESOURCE_EXHAUSTED": LimitExceededError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": CancelledError,
    "FAILED_PRECONDITION": UnsupportedError,
    "UNIMPLEMENTED": UnsupportedError,
    "UNAUTHENTICATED": AccessDeniedError,
    "PERMISSION_DENIED": AccessDeniedError,
    "UNAVAILABLE": UnavailableError,
    "INTERNAL": ServerError,
    "UNKNOWN": ServerError,
    "DATA_LOSS": ServerError,
    "ABORTED": ServerError,
    "ALREADY_EXISTS": ServerError,
}
"""The exception for each status code."""
