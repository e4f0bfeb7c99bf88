"""Plans held against measurements: what to measure, and what follows from it.

job = to_measure(goal, plan)
...                                             # profile: what running it gave
goal = restricted(timelines, goal, profile)     # less where it did not fit
plan = with_evidence(plan_job(timelines, goal), goal, [profile])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memplan.types import (
    AccumulationPlan,
    BatchSizeRecommendation,
    MeasuredProfile,
    Placement,
    PlanJobResponse,
    TrainingJob,
    Verdict,
)
from memplan_server.planning.evidence import Evidence, Finding, below, described
from memplan_server.planning.goal import Goal
from memplan_server.planning.targets import Target, Timelines
from memplan_server.planning.text import gib

__all__ = ["restricted", "to_measure", "with_evidence"]

_MICRO_BATCHES = 2
"""Of a step that accumulates over more, as many are run: the further ones take the same memory."""


def to_measure(goal: Goal, plan: PlanJobResponse) -> TrainingJob | None:
    """The job at the micro-batch size that is planned for the first GPU; None where there is none.

    The accumulation plan's; else the job's own, or the recommended one where that does not fit.
    """
    job, accumulation = goal.job, plan.accumulation
    if accumulation is not None and accumulation.feasible:
        steps = min(accumulation.accumulation_steps, _MICRO_BATCHES)
        loop = replace(job.loop, accumulation_steps=steps)
        return replace(job, micro_batch_size=accumulation.micro_batch_size, loop=loop)
    seen_not_to_fit = job.micro_batch_size > goal.targets[0].most_samples
    if plan.placements[0].verdict is not Verdict.DOES_NOT_FIT and not seen_not_to_fit:
        return job
    recommended = plan.batch_sizes[0].recommended_batch_size
    return replace(job, micro_batch_size=recommended) if recommended else None


def restricted(timelines: Timelines, goal: Goal, profile: MeasuredProfile) -> Goal:
    """The goal with smaller micro-batches for the GPUs that the profile shows to be too small."""

    def limited(target: Target) -> Target:
        evidence = Evidence.of(profile, target)
        if evidence.finding is not Finding.DOES_NOT_FIT:
            return target
        most = below(timelines, evidence, target, goal.headroom_fraction)
        return replace(target, most_samples=min(target.most_samples, most))

    return replace(goal, targets=tuple(map(limited, goal.targets)))


def with_evidence(
    plan: PlanJobResponse, goal: Goal, profiles: Sequence[MeasuredProfile]
) -> PlanJobResponse:
    """The plan, made for this goal, with verdicts and reasons as these measurements have them."""
    found = [[Evidence.of(p, target) for p in profiles] for target in goal.targets]
    return replace(
        plan,
        accumulation=_accumulation(plan.accumulation, goal, found[0]),
        batch_sizes=tuple(
            _batch_size(one, evidence)
            for one, evidence in zip(plan.batch_sizes, found, strict=True)
        ),
        placements=tuple(
            _placement(one, goal.job, evidence)
            for one, evidence in zip(plan.placements, found, strict=True)
        ),
    )


def _accumulation(
    plan: AccumulationPlan | None, goal: Goal, found: Sequence[Evidence]
) -> AccumulationPlan | None:
    if plan is None:
        return None
    steps = min(plan.accumulation_steps, _MICRO_BATCHES)
    loop = replace(goal.job.loop, accumulation_steps=steps)
    planned = replace(goal.job, micro_batch_size=plan.micro_batch_size, loop=loop)
    plan = replace(plan, reason=_corrected(plan.reason, found))
    for evidence in found:
        if plan.feasible and evidence.says_that_it_fits(planned):
            reason = f"{plan.reason} {evidence.why}"
            return replace(plan, reason=reason, device_used_bytes=evidence.needed_bytes)
    return plan


def _batch_size(one: BatchSizeRecommendation, found: Sequence[Evidence]) -> BatchSizeRecommendation:
    return replace(one, reason=_corrected(one.reason, found))


def _corrected(reason: str, found: Sequence[Evidence]) -> str:
    """The reason behind what made it different from what was estimated at first."""
    failed = [e for e in found if e.finding is Finding.DOES_NOT_FIT]
    if not failed:
        return reason
    smallest = min(failed, key=lambda e: e.profile.micro_batch_size)
    return f"{smallest.why} Planned below it: {reason[:1].lower()}{reason[1:]}"


def _placement(one: Placement, job: TrainingJob, found: Sequence[Evidence]) -> Placement:
    for evidence in found:
        if evidence.says_that_it_does_not_fit(job):
            return _measured(one, Verdict.DOES_NOT_FIT, evidence)
    for evidence in found:
        if evidence.says_that_it_fits(job):
            return replace(_measured(one, Verdict.FITS, evidence), remedies=())
    return one


def _measured(one: Placement, verdict: Verdict, evidence: Evidence) -> Placement:
    """With the verdict of a measurement. What ran out of memory needs more than was seen."""
    used = evidence.needed_bytes
    if evidence.profile.out_of_memory:
        used = max(used, one.device_used_bytes)
    before = (
        f" The estimate said {gib(one.device_used_bytes)}, at most {gib(one.upper_bound_bytes)}."
    )
    return replace(
        one,
        verdict=verdict,
        device_used_bytes=used,
        upper_bound_bytes=used,
        spare_bytes=max(0, one.capacity_bytes - used),
        missing_bytes=max(0, used - one.capacity_bytes),
        reason=f"{evidence.why} Measured on {described(evidence.profile)}.{before}",
    )
