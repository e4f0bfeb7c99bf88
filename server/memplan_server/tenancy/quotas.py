"""How much each tenant has asked for, and that it is no more than it may.

    with quotas.request(tenant):                # QuotaExceeded, or one call in flight and counted
        ...
    with quotas.measuring(tenant, 60.0) as meter:
        meter.start()                           # from here on it is charged

Windows slide: in no minute are more requests let in than the limit, wherever it begins; the same
for the seconds of an hour. What is refused does not count. Each server counts for itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from memplan_server.errors import NotAllowed, QuotaExceeded
from memplan_server.metrics import Metrics
from memplan_server.tenancy.tenants import Tenant

__all__ = ["Meter", "Quotas"]

MINUTE_S, HOUR_S = 60.0, 3600.0
SOON_S = 1.0
"""When a call may have ended that is under way."""


@dataclass(slots=True)
class _Usage:
    """Of one tenant."""

    in_flight: int = 0
    requests: deque[float] = field(default_factory=deque)
    """When those of the last minute were let in."""
    measured: deque[tuple[float, float]] = field(default_factory=deque)
    """When measurements of the last hour ended, and their seconds."""
    reserved_s: float = 0.0
    """For measurements under way."""


class Meter:
    """The seconds that one measurement takes."""

    def __init__(self, clock: Callable[[], float], most_s: float) -> None:
        self._clock = clock
        self._most_s = most_s
        self._started: float | None = None

    def start(self) -> None:
        """It runs, and waits no more. Further times do nothing."""
        if self._started is None:
            self._started = self._clock()

    def seconds(self) -> float:
        """So far; no more than what was asked for."""
        if self._started is None:
            return 0.0
        return min(self._clock() - self._started, self._most_s)


class Quotas:
    """Counts for all tenants. Safe to use from several threads."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._usages: dict[str, _Usage] = {}

    @contextmanager
    def request(self, tenant: Tenant) -> Iterator[None]:
        """A call of the tenant, in flight while the block lasts. Raises QuotaExceeded."""
        with self._lock:
            usage = self._usages.setdefault(tenant.name, _Usage())
            self._check_request(tenant, usage)
            usage.in_flight += 1
            if tenant.requests_per_minute is not None:
                usage.requests.append(self._clock())
        self._metrics.tenant_requests.labels(tenant.name).inc()
        try:
            yield
        finally:
            with self._lock:
                usage.in_flight -= 1

    @contextmanager
    def measuring(self, tenant: Tenant, most_s: float) -> Iterator[Meter]:
        """A measurement that may take `most_s` seconds; what it did not take is given back.

        Raises QuotaExceeded where so much is not left, and NotAllowed where nothing ever is.
        """
        meter = Meter(self._clock, most_s)
        with self._lock:
            usage = self._usages.setdefault(tenant.name, _Usage())
            self._check_measuring(tenant, usage, most_s)
            usage.reserved_s += most_s
        try:
            yield meter
        finally:
            took_s = meter.seconds()
            with self._lock:
                usage.reserved_s -= most_s
                usage.measured.append((self._clock(), took_s))
            self._metrics.tenant_measuring_seconds.labels(tenant.name).inc(took_s)

    def _check_request(self, tenant: Tenant, usage: _Usage) -> None:
        now, most = self._clock(), tenant.requests_per_minute
        while usage.requests and usage.requests[0] <= now - MINUTE_S:
            usage.requests.popleft()
        if tenant.concurrent_requests is not None and usage.in_flight >= tenant.concurrent_requests:
            raise self._exceeded(
                tenant,
                "concurrent_requests",
                f"{tenant.name} has {usage.in_flight} requests under way, as many as it may. "
                "Wait for one to end.",
                SOON_S,
            )
        if most is not None and len(usage.requests) >= most:
            # The one that has to leave the window: a limit may have been lowered meanwhile.
            leaves = usage.requests[len(usage.requests) - most]
            raise self._exceeded(
                tenant,
                "requests_per_minute",
                f"{tenant.name} has made {len(usage.requests)} requests within a minute; it may "
                f"make {most}. Try again later.",
                leaves + MINUTE_S - now,
            )

    def _check_measuring(self, tenant: Tenant, usage: _Usage, most_s: float) -> None:
        now, limit = self._clock(), tenant.measuring_seconds_per_hour
        while usage.measured and usage.measured[0][0] <= now - HOUR_S:
            usage.measured.popleft()
        if limit is None:
            return
        if not limit:
            raise NotAllowed(
                f"{tenant.name} may not measure jobs on this server. Plan them without measuring, "
                "or ask whoever runs it."
            )
        left_s = limit - usage.reserved_s - sum(seconds for _, seconds in usage.measured)
        if most_s > left_s:
            raise self._exceeded(
                tenant,
                "measuring_seconds_per_hour",
                f"{tenant.name} may measure for {limit} s within an hour, of which "
                f"{max(0.0, left_s):.0f} s are left; {most_s:.0f} s were asked for. Ask for less "
                "time, or try again later.",
                _wait_s(usage, most_s - left_s, now) if most_s <= limit else None,
            )

    def _exceeded(
        self, tenant: Tenant, quota: str, message: str, retry_after_s: float | None
    ) -> QuotaExceeded:
        self._metrics.tenant_refusals.labels(tenant.name, quota).inc()
        return QuotaExceeded(message, quota, tenant.name, retry_after_s)


def _wait_s(usage: _Usage, missing_s: float, now: float) -> float:
    """Until so many seconds are given back by the hour's passing; a guess where some may be by
    what is under way."""
    for ended, seconds in usage.measured:
        missing_s -= seconds
        if missing_s <= 0:
            return ended + HOUR_S - now
    return SOON_S
