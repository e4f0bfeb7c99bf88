"""What a plan asks a scheduler for, before it is put into a scheduler's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from memplan.types import GpuType, PlanJobRequest, PlanJobResponse, Verdict

__all__ = ["Candidate", "Wanted", "alike", "wanted"]

T = TypeVar("T")

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A GPU type on which the job fits."""

    gpu_type: GpuType
    need_bytes: int
    """Bytes that a process of the job may take on it, its CUDA context included."""

    @property
    def need_mib(self) -> int:
        """The same in MiB, rounded up."""
        return -(-self.need_bytes // MIB)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One GPU for each rank, of any of the candidates."""

    candidates: tuple[Candidate, ...] = ()
    """GPU types on which the job fits, in the order asked about. Empty: see `reason`."""
    rank_count: int = 1
    """Processes, each with a GPU of its own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that tell the job what was planned."""
    reason: str = ""
    """The plan in a sentence, or why there is no request."""

    @property
    def need_mib(self) -> int:
        """MiB that suffice on every candidate."""
        return max(candidate.need_mib for candidate in self.candidates)


def wanted(
    request: PlanJobRequest, answer: PlanJobResponse, gpu_types: Sequence[GpuType]
) -> Wanted:
    """What to ask for. `gpu_types` are those asked about, in the order of `answer.placements`.

    With an accumulation plan it is the first GPU, as large as the plan was made for: the plan's
    micro-batches are not those of the job as it is described, for which the placements hold.
    """
    ranks = request.data_parallel_size or 1
    plan = answer.accumulation
    if plan is not None and not plan.feasible:
        return Wanted(rank_count=ranks, reason=plan.reason)
    if plan is not None:
        capacity = answer.placements[0].capacity_bytes
        return Wanted(
            candidates=(Candidate(gpu_type=gpu_types[0], need_bytes=capacity),),
            rank_count=ranks,
            environment=_environment(plan.micro_batch_size, plan.accumulation_steps),
            reason=f"micro-batch {plan.micro_batch_size} x {plan.accumulation_steps} steps on "
            f"{gpu_types[0].name}. {plan.reason}",
        )
    return _as_described(request, answer, gpu_types, ranks)


def _as_described(
    request: PlanJobRequest, answer: PlanJobResponse, gpu_types: Sequence[GpuType], ranks: int
) -> Wanted:
    pairs = list(zip(answer.placements, gpu_types, strict=True))
    fitting = [(p, g) for p, g in pairs if p.verdict is Verdict.FITS]
    if not fitting:
        reasons = " ".join(f"{g.name}: {p.reason}" for p, g in pairs)
        return Wanted(rank_count=ranks, reason=f"The job fits for sure on no GPU. {reasons}")
    job = request.job
    first, gpu_type = fitting[0]
    return Wanted(
        candidates=tuple(Candidate(gpu_type=g, need_bytes=p.upper_bound_bytes) for p, g in fitting),
        rank_count=ranks,
        environment=_environment(job.micro_batch_size, job.loop.accumulation_steps or 1),
        reason=f"micro-batch {job.micro_batch_size} on {gpu_type.name}. {first.reason}",
    )


def _environment(micro_batch_size: int, accumulation_steps: int) -> dict[str, str]:
    return {
        "MEMPLAN_MICRO_BATCH_SIZE": str(micro_batch_size),
        "MEMPLAN_ACCUMULATION_STEPS": str(accumulation_steps),
    }


def alike(named: Sequence[tuple[T, Candidate]]) -> list[Candidate]:
    """The candidates that can be asked for by the same name as the first one."""
    return [candidate for name, candidate in named if name == named[0][0]]
