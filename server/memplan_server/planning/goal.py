"""Everything that is planned for one job, in one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from memplan.types import AccumulationPlan, GpuType, PlanJobResponse, TrainingJob
from memplan_server.planning.accumulation import plan_accumulation
from memplan_server.planning.batch_size import recommend_batch_sizes
from memplan_server.planning.estimate import estimate_memory
from memplan_server.planning.learned import NOTHING_LEARNED, Learned
from memplan_server.planning.placement import place
from memplan_server.planning.targets import Target, Timelines
from memplan_server.planning.uncertainty import CONFIDENCE

__all__ = ["Goal", "plan_job"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a plan is asked for."""

    job: TrainingJob
    """Normalised."""
    targets: Sequence[Target]
    """At least one; the estimate and the accumulation plan are for the first."""
    global_batch_size: int = 0
    """0: no accumulation plan."""
    data_parallel_size: int = 1
    headroom_fraction: float = 0.05
    confidence: float = CONFIDENCE
    catalog: Sequence[GpuType] = ()
    """GPU types that remedies may name."""
    learned: Learned = NOTHING_LEARNED
    patient: Callable[[], bool] = lambda: True
    """Whether there is time for simulations that an answer can do without."""


def plan_job(timelines: Timelines, goal: Goal) -> PlanJobResponse:
    """Estimate, batch sizes, accumulation plan and placements."""
    return PlanJobResponse(
        accumulation=_accumulation(timelines, goal) if goal.global_batch_size else None,
        estimate=estimate_memory(
            timelines,
            goal.job,
            goal.targets[0].gpu_type,
            confidence=goal.confidence,
            learned=goal.learned,
        ),
        batch_sizes=recommend_batch_sizes(
            timelines,
            goal.job,
            goal.targets,
            headroom_fraction=goal.headroom_fraction,
            confidence=goal.confidence,
            learned=goal.learned,
        ),
        placements=place(
            timelines,
            goal.job,
            goal.targets,
            global_batch_size=goal.global_batch_size,
            data_parallel_size=goal.data_parallel_size,
            headroom_fraction=goal.headroom_fraction,
            confidence=goal.confidence,
            learned=goal.learned,
            catalog=goal.catalog,
            patient=goal.patient,
        ),
    )


def _accumulation(timelines: Timelines, goal: Goal) -> AccumulationPlan:
    """The job's own micro-batch size does not bind it."""
    return plan_accumulation(
        timelines,
        replace(goal.job, micro_batch_size=0),
        goal.targets[0],
        global_batch_size=goal.global_batch_size,
        data_parallel_size=goal.data_parallel_size,
        headroom_fraction=goal.headroom_fraction,
        confidence=goal.confidence,
        learned=goal.learned,
    )
