"""A plan for the GPUs of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from memplan.client import Client
from memplan.errors import UnknownNameError
from memplan.scheduling.planner import PLAN_TIMEOUT_S
from memplan.slurm.decide import Judged, judge
from memplan.slurm.inventory import Kind
from memplan.types import AccumulationPlan, PlanJobRequest, PlanJobResponse

__all__ = ["Plan", "key", "make"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the service says of a job, on the GPUs of a cluster."""

    judged: Judged
    answer: PlanJobResponse
    accumulation: AccumulationPlan | None


def key(request: PlanJobRequest, kinds: Sequence[Kind]) -> str:
    """What equal plans have in common."""
    return repr((request, [(kind.gres_type, kind.gpu_type, kind.nodes) for kind in kinds]))


def make(client: Client, request: PlanJobRequest, kinds: tuple[Kind, ...]) -> Plan:
    """Ask the service. Raises MemplanError."""
    kinds, answer = _plan_known(client, request, kinds)
    judged = judge(kinds, answer)
    accumulation = None
    if request.global_batch_size and judged.chosen:
        accumulation = client.plan_accumulation(
            request.job,
            judged.first.gpu,
            global_batch_size=request.global_batch_size,
            data_parallel_size=request.data_parallel_size,
            headroom_fraction=request.headroom_fraction,
            confidence=request.confidence,
            timeout=PLAN_TIMEOUT_S,
        )
    return Plan(judged=judged, answer=answer, accumulation=accumulation)


def _plan_known(
    client: Client, request: PlanJobRequest, kinds: tuple[Kind, ...]
) -> tuple[tuple[Kind, ...], PlanJobResponse]:
    """The plan for the GPUs that the service knows; the others lose their GPU type."""
    while True:
        gpus = tuple(dict.fromkeys(kind.gpu_type for kind in kinds if kind.gpu_type))
        if not gpus:
            return kinds, PlanJobResponse()
        try:
            answer = client.plan_job(
                request.job,
                gpus,
                headroom_fraction=request.headroom_fraction,
                confidence=request.confidence,
                timeout=PLAN_TIMEOUT_S,
            )
        except UnknownNameError as error:
            if error.name not in gpus:
                raise
            log.warning("no GPU type of the catalog: %r; see [gpus]", error.name)
            kinds = tuple(
                replace(kind, gpu_type="") if kind.gpu_type == error.name else kind
                for kind in kinds
            )
        else:
            return kinds, answer
