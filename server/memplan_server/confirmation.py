"""Plans confirmed or corrected by running what is planned, within a time budget.

    answer = confirmation.confirm(timelines, goal, plan, budget, call)

A profile that is stored already takes the place of a run. Where a run shows that the plan does not
fit, it is made again with less, and run again while there is time. Nothing that goes wrong with
measuring fails the plan: a sentence of `measurement_notes` says what it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from memplan.types import DeviceType, MeasuredProfile, PlanJobResponse, TrainingJob
from memplan_server import planning
from memplan_server.calls import Call
from memplan_server.errors import MemplanError, NoDevice, TimeLimitExceeded, WorkerFailure
from memplan_server.jobs import job_digest
from memplan_server.planning import Evidence, Finding, Goal, Target, Timelines
from memplan_server.planning.text import gib
from memplan_server.profiles import ProfileStore
from memplan_server.profiling import Asked, Profiler

__all__ = ["Confirmation"]

log = logging.getLogger(__name__)

MOST_RUNS = 3
RESERVE_S = 1.0
"""Of the caller's time, what is kept for planning again and answering."""
LEAST_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Budget:
    """The time that may be spent, on whose behalf."""

    call: Call
    seconds: float
    ends: float
    peer: str

    @classmethod
    def of(cls, call: Call, given: timedelta, peer: str) -> _Budget:
        """Not beyond what the call leaves."""
        seconds, remaining = given.total_seconds(), call.remaining_s()
        if remaining is not None:
            seconds = max(0.0, min(seconds, remaining - RESERVE_S))
        return cls(call=call, seconds=seconds, ends=time.monotonic() + seconds, peer=peer)

    def left_s(self) -> float:
        """Seconds that are left."""
        return self.ends - time.monotonic()


class _NotMeasured(Exception):
    """Why, in a sentence."""


class Confirmation:
    """Runs what is planned. Safe to use from several threads."""

    def __init__(self, *, profiler: Profiler, profiles: ProfileStore) -> None:
        """`profiles` is where earlier ones are looked for."""
        self._profiler = profiler
        self._profiles = profiles

    def confirm(
        self,
        timelines: Timelines,
        goal: Goal,
        plan: PlanJobResponse,
        given: timedelta,
        call: Call,
        *,
        peer: str = "",
    ) -> PlanJobResponse:
        """The plan for `goal`, held against what running it shows within the time `given`.

        Raises for the call (Cancelled, TimeLimitExceeded) and for what planning again raises.
        """
        budget = _Budget.of(call, given, peer)
        notes: list[str] = []
        profiles: list[MeasuredProfile] = []
        while len(profiles) < MOST_RUNS:
            job = planning.to_measure(goal, plan)
            if job is None:
                notes.append("No micro-batch size is left to measure: none is planned.")
                break
            try:
                profile, how = self._profile(job, goal.targets[0], budget)
            except _NotMeasured as error:
                notes.append(f"Micro-batch {job.micro_batch_size} was not measured: {error}")
                break
            profiles.append(profile)
            evidence = Evidence.of(profile, goal.targets[0])
            notes += [f"{how} {planning.described(profile)}.", evidence.why]
            notes += _beside(timelines, profile, goal)
            if evidence.finding is not Finding.DOES_NOT_FIT:
                break
            goal = planning.restricted(timelines, goal, profile)
            plan = planning.plan_job(timelines, goal)
        plan = planning.with_evidence(plan, goal, profiles)
        return replace(
            plan, profile=profiles[-1] if profiles else plan.profile, measurement_notes=tuple(notes)
        )

    def _profile(
        self, job: TrainingJob, target: Target, budget: _Budget
    ) -> tuple[MeasuredProfile, str]:
        """What was measured of the job, now or before, and which of the two."""
        stored = self._stored(job, target)
        if stored is not None:
            return stored, f"Profile {stored.profile_id}, measured before on"
        return self._measured(job, target, budget), "Measured on"

    def _stored(self, job: TrainingJob, target: Target) -> MeasuredProfile | None:
        """A stored profile that decides, on a GPU of the type."""
        size, gpu_type = job.micro_batch_size, target.gpu_type.name
        found = self._profiles.newest(job_digest(job), gpu_type, size)
        if found is None or Evidence.of(found, target).finding is Finding.NOTHING:
            return None
        return found

    def _measured(self, job: TrainingJob, target: Target, budget: _Budget) -> MeasuredProfile:
        """On a GPU of the type; where there is none, on another GPU or the CPU."""
        asked = Asked(
            job=job,
            gpu_type=target.gpu_type.name,
            memory_limit_bytes=target.gpu.free_bytes or 0,
            time_limit_s=max(LEAST_S, budget.left_s()),
            peer=budget.peer,
        )
        try:
            return self._run(asked, budget)
        except NoDevice:
            pass
        try:
            return self._run(replace(asked, gpu_type="", memory_limit_bytes=0), budget)
        except NoDevice as error:
            raise _NotMeasured(str(error)) from None

    def _run(self, asked: Asked, budget: _Budget) -> MeasuredProfile:
        """Raises _NotMeasured or NoDevice, and what `budget.call` raises."""
        if budget.left_s() <= LEAST_S:
            raise _NotMeasured(_no_time(budget))
        inner = Call(budget.left_s())
        try:
            with budget.call.when_cancelled(inner.cancel):
                return _only_profile(self._profiler.profile(asked, inner))
        except NoDevice:
            raise
        except TimeLimitExceeded:
            budget.call.check()
            raise _NotMeasured(_no_time(budget)) from None
        except Exception as error:
            budget.call.check()
            raise _NotMeasured(_failure(error)) from None


def _only_profile(events: Any) -> MeasuredProfile:
    with closing(events):
        for event in events:
            if event.profile is not None:
                found: MeasuredProfile = event.profile
                return found
    raise AssertionError("a profiler ends with a profile or an exception")


def _failure(error: Exception) -> str:
    """What a caller may know of it."""
    if isinstance(error, MemplanError) and not isinstance(error, WorkerFailure):
        return str(error)
    log.error("measuring a plan failed", exc_info=error)
    return "Measuring failed by a defect, which the log of the server tells of."


def _no_time(budget: _Budget) -> str:
    return (
        f"the {budget.seconds:.3g} s that there were for measuring, waiting for a device included, "
        "were over before it was done."
    )


def _beside(timelines: Timelines, profile: MeasuredProfile, goal: Goal) -> Sequence[str]:
    """What the estimate says for what was measured."""
    if profile.out_of_memory:
        return ()
    gpu_type = goal.targets[0].gpu_type
    estimate = planning.estimate_memory(
        timelines, profile.job, gpu_type, confidence=goal.confidence, learned=goal.learned
    )
    size = profile.micro_batch_size
    if profile.device_type is DeviceType.CUDA and profile.gpu_type == gpu_type.name:
        expected, most = gib(estimate.device_used_bytes), gib(estimate.upper_bound_bytes)
        return (f"The estimate for micro-batch {size} is {expected}, at most {most}.",)
    return (
        f"At micro-batch {size} tensors took {profile.peak_allocated_bytes:,} bytes at their peak; "
        f"the estimate for {gpu_type.name} is {estimate.peak_allocated_bytes:,} bytes, of which "
        f"workspaces of its kernels take {estimate.breakdown.workspace_bytes:,}.",
    )
