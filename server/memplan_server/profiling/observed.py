"""Counts profiles: how they end, how long they take, how estimates compare with them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from memplan.types import MeasuredProfile, ProfileMemoryResponse
from memplan_server.calls import Call
from memplan_server.errors import (
    Cancelled,
    InvalidJob,
    LimitExceeded,
    MeasurementFailure,
    NoDevice,
    Relayed,
    TimeLimitExceeded,
    Unreachable,
)
from memplan_server.metrics import Metrics
from memplan_server.profiling.interface import Asked, Profiler

__all__ = ["ObservedProfiler"]

_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (GeneratorExit, "cancelled"),
    (Cancelled, "cancelled"),
    (TimeLimitExceeded, "time_limit"),
    (LimitExceeded, "refused"),
    (NoDevice, "no_device"),
    (Unreachable, "unreachable"),
    (InvalidJob, "invalid_job"),
    (MeasurementFailure, "crashed"),
    (Relayed, "relayed"),
)


class ObservedProfiler:
    """A `Profiler` around another one."""

    def __init__(self, inner: Profiler, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """See `Profiler.profile`."""
        started = time.monotonic()
        outcome = "failed"
        try:
            for event in self._inner.profile(asked, call):
                if event.profile is not None:
                    outcome = "out_of_memory" if event.profile.out_of_memory else "done"
                    self._compare(event.profile)
                yield event
        except BaseException as error:
            if outcome == "failed":
                outcome = next((o for kind, o in _OUTCOMES if isinstance(error, kind)), outcome)
            raise
        finally:
            self._metrics.profiles.labels(outcome).inc()
            self._metrics.profile_seconds.observe(time.monotonic() - started)

    def _compare(self, profile: MeasuredProfile) -> None:
        """What a run that failed took is no figure of the job."""
        prediction, measured = profile.prediction, profile.peak_reserved_bytes
        if prediction is not None and measured and not profile.out_of_memory:
            ratio = prediction.peak_reserved_bytes / measured
            self._metrics.prediction_ratio.labels(profile.gpu_type).observe(ratio)
