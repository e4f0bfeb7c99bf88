"""Counts profiles: how they end, how long they take, how estimates compare with them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from memplan.types import DeviceType, MeasuredProfile, ProfileMemoryResponse
from memplan_server.calls import Call
from memplan_server.errors import (
    Cancelled,
    InvalidJob,
    LimitExceeded,
    MeasurementFailure,
    MemplanError,
    NoDevice,
    Relayed,
    TimeLimitExceeded,
    Unreachable,
)
from memplan_server.metrics import Metrics
from memplan_server.profiling.interface import Asked, Profiler

__all__ = ["PREDICTION_S", "ObservedProfiler", "Predict"]

log = logging.getLogger(__name__)

Predict = Callable[[MeasuredProfile], int]
"""The peak reserved bytes that the estimate says for what was measured."""
PREDICTION_S = 60.0
"""Longest time to wait for that."""

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

    def __init__(self, inner: Profiler, metrics: Metrics, predict: Predict) -> None:
        """`predict` is called in a thread of its own, as it may take seconds."""
        self._inner = inner
        self._metrics = metrics
        self._predict = predict
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="memplan-predict")

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

    def stop(self) -> None:
        """Predict nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _compare(self, profile: MeasuredProfile) -> None:
        """Only what was measured on GPUs of the catalog says how good estimates are."""
        measured = profile.device_type is DeviceType.CUDA and not profile.out_of_memory
        if measured and profile.gpu_type and profile.peak_reserved_bytes:
            self._pool.submit(self._observe_ratio, profile)

    def _observe_ratio(self, profile: MeasuredProfile) -> None:
        try:
            ratio = self._predict(profile) / profile.peak_reserved_bytes
        except MemplanError as error:
            log.warning("what was measured could not be estimated: %s", error)
        else:
            self._metrics.prediction_ratio.labels(profile.gpu_type).observe(ratio)
