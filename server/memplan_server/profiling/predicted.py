"""Puts beside what was measured what was estimated for it, to learn from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from memplan.types import DeviceType, MeasuredProfile, Prediction, ProfileMemoryResponse
from memplan_server.calls import Call
from memplan_server.errors import Cancelled, MemplanError
from memplan_server.profiling.interface import Asked, Profiler

__all__ = ["Predict", "PredictingProfiler"]

log = logging.getLogger(__name__)

Predict = Callable[[MeasuredProfile, Call], Prediction]
"""The estimate for what was measured, on a GPU type of the catalog."""
PREDICTION_S = 30.0
"""Longest time that a profile waits for it: most often the job was estimated before."""
RESERVE_S = 1.0
"""Of the caller's time, what is left to hand the profile over."""


@dataclass(frozen=True, slots=True)
class PredictingProfiler:
    """A `Profiler` around another one."""

    inner: Profiler
    predict: Predict
    version: str
    """Names the code and the library versions of predictions made here."""

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """See `Profiler.profile`."""
        for event in self.inner.profile(asked, call):
            if event.profile is not None and self._is_missing(event.profile):
                event = replace(event, profile=self._predicted(event.profile, call))
            yield event

    def _is_missing(self, profile: MeasuredProfile) -> bool:
        """What another server has predicted with other versions is no estimate of this one."""
        known = profile.prediction is not None and profile.prediction.version == self.version
        return profile.device_type is DeviceType.CUDA and bool(profile.gpu_type) and not known

    def _predicted(self, profile: MeasuredProfile, call: Call) -> MeasuredProfile:
        remaining = call.remaining_s()
        seconds = PREDICTION_S if remaining is None else min(PREDICTION_S, remaining - RESERVE_S)
        inner = Call(max(0.0, seconds))
        try:
            with call.when_cancelled(inner.cancel):
                return replace(profile, prediction=self.predict(profile, inner))
        except Cancelled:
            call.check()
            raise
        except MemplanError as error:
            log.warning("what was measured could not be estimated: %s", error)
            return profile
