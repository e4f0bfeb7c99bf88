"""What can go wrong, as the core says it.

    MemplanError
    ├── InvalidJob            the request breaks a rule; one violation for each place
    ├── UnknownName           no such model or GPU type
    ├── LimitExceeded         larger than, or more at once than, the server allows
    │   └── QuotaExceeded     more than the tenant may
    ├── Unauthenticated       no token, or none that is known
    ├── NotAllowed            the tenant may not do this
    ├── TimeLimitExceeded     not done in time
    ├── Cancelled             the caller went away
    ├── NoDevice              there is no device such as the one asked for
    ├── Unreachable           no profiler answers
    ├── StoreFailure          stored profiles cannot be read now
    ├── MeasurementFailure    the process that measured crashed
    ├── Relayed               what another server answered
    └── WorkerFailure         a worker died, or raised what it should not have

The core raises these and nothing else for anything a user can cause; the transport edge maps them
to status codes. They are plain data, so they cross process borders.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Cancelled",
    "InvalidJob",
    "LimitExceeded",
    "MeasurementFailure",
    "MemplanError",
    "NoDevice",
    "NotAllowed",
    "QuotaExceeded",
    "Relayed",
    "StoreFailure",
    "TimeLimitExceeded",
    "Unauthenticated",
    "UnknownName",
    "Unreachable",
    "Violation",
    "WorkerFailure",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One place of a request that breaks a rule."""

    field: str
    """Path in the request, `job.model.layer_stack.layers[3].linear.in_features`."""
    description: str
    """What is wrong and what to do, in a sentence."""


class MemplanError(Exception):
    """Base of everything the core raises for its users."""


class InvalidJob(MemplanError, ValueError):
    """The request breaks a rule."""

    def __init__(self, *violations: Violation) -> None:
        assert violations
        super().__init__(*violations)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Every violation found; at least one."""
        return self.args

    def __str__(self) -> str:
        return "; ".join(f"{v.field}: {v.description}" for v in self.violations)


class UnknownName(MemplanError, LookupError):
    """No such model or GPU type."""

    def __init__(self, kind: str, name: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(kind, name, nearest)
        self.kind, self.name, self.nearest = kind, name, nearest

    def __str__(self) -> str:
        hint = f" Did you mean {', '.join(self.nearest)}?" if self.nearest else ""
        return f"There is no {self.kind} {self.name!r}.{hint}"


class LimitExceeded(MemplanError):
    """Larger than, or more at once than, the server allows."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.message, self.retry_after_s = message, retry_after_s

    def __str__(self) -> str:
        return self.message


class QuotaExceeded(LimitExceeded):
    """More than the tenant may."""

    def __init__(
        self, message: str, quota: str, tenant: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s)
        self.args = (message, quota, tenant, retry_after_s)
        self.quota, self.tenant = quota, tenant
        """Which limit, as the file of tenants calls it, of whom."""


class Unauthenticated(MemplanError):
    """No token, or none that is known; `reason` says which in a word."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.message, self.reason = message, reason

    def __str__(self) -> str:
        return self.message


class NotAllowed(MemplanError):
    """The tenant may not do this."""


class TimeLimitExceeded(MemplanError, TimeoutError):
    """Not done in the time that the caller or the server gives."""


class Cancelled(MemplanError):
    """The caller went away before the answer was ready."""


class NoDevice(MemplanError):
    """There is no device such as the one asked for, here or at a profiler."""


class Unreachable(MemplanError):
    """No profiler answers."""


class StoreFailure(MemplanError):
    """The database of profiles does not answer, or not with what can be read."""


class MeasurementFailure(MemplanError):
    """The process that measured a job crashed or was killed."""


class Relayed(MemplanError):
    """What another server answered, to be passed on as it is."""

    def __init__(self, code: int, message: str, status: bytes = b"") -> None:
        super().__init__(code, message, status)
        self.code, self.message, self.status = code, message, status
        """Number of the status code; its message; a serialised google.rpc.Status or nothing."""

    def __str__(self) -> str:
        return self.message


class WorkerFailure(MemplanError):
    """A worker process died or raised what it should not have: a defect, not the user's fault."""
