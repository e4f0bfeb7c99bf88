"""What becomes of a job: its plan beside the GPUs of the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from memplan.scheduling.sentences import environment, micro_batches, remedies
from memplan.slurm.inventory import Kind
from memplan.slurm.tres import GpuRequest, gpu_request, with_type
from memplan.types import AccumulationPlan, Placement, PlanJobResponse, TrainingJob, Verdict

__all__ = ["Decision", "Judged", "decide", "judge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a plugin does."""

    messages: tuple[str, ...] = ()
    """Sentences for the user."""
    refusal: str = ""
    """Why the job is refused; empty where it is not."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """New values of fields of the job."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the job."""
    note: str = ""
    """For its admin comment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The GPUs of a cluster, or of its partitions, by whether the job fits on them."""

    chosen: tuple[tuple[Kind, Placement], ...] = ()
    """Where it may run, least memory first: where it fits, or else where it might."""
    others: tuple[tuple[Kind, Placement | None], ...] = ()
    """The rest; None where a GPU is unknown."""

    @property
    def first(self) -> Placement:
        """The placement on the smallest GPU that was chosen."""
        return self.chosen[0][1]


def judge(kinds: Sequence[Kind], plan: PlanJobResponse) -> Judged:
    """`plan.placements` are for the GPU types of `kinds`, each once and in that order.

    A kind that is not known has no GPU type, and none of them.
    """
    asked = list(dict.fromkeys(kind.gpu_type for kind in kinds if kind.gpu_type))
    by_type = dict(zip(asked, plan.placements, strict=True))
    pairs = [(kind, by_type.get(kind.gpu_type)) for kind in kinds]
    for wanted in (Verdict.FITS, Verdict.UNCERTAIN):
        chosen = [(k, p) for k, p in pairs if p is not None and p.verdict is wanted]
        if chosen:
            chosen.sort(key=lambda pair: pair[1].capacity_bytes)
            taken = {id(kind) for kind, _ in chosen}
            others = [(k, p) for k, p in pairs if id(k) not in taken]
            return Judged(chosen=tuple(chosen), others=tuple(others))
    return Judged(others=tuple(pairs))


def decide(
    asked: Mapping[str, str],
    job: TrainingJob,
    judged: Judged,
    plan: PlanJobResponse,
    accumulation: AccumulationPlan | None,
) -> Decision:
    """`asked` are the fields of the job as Slurm has them.

    It is refused where by its description it cannot fit on the type that it asks for or, where it
    asks for none, on any GPU that its partition has. A GPU that is not known may hold anything.
    """
    request = gpu_request(asked)
    if refusal := _refusal(request, judged):
        return Decision(refusal=refusal)
    if not judged.chosen:
        return Decision(messages=("This job fits on none of the GPUs here that are known.",))
    changes = _narrowed(asked, request, judged)
    placement = _where(request, judged)
    micro, steps = micro_batches(job, accumulation)
    messages = [f"{placement.gpu.gpu_type}: {placement.reason}"]
    if placement.verdict is not Verdict.FITS:
        messages += remedies([placement], {p.gpu.gpu_type for _, p in judged.chosen})
    if accumulation is not None and accumulation.feasible:
        messages.append(f"micro-batch {micro} x {steps} steps. {accumulation.reason}")
    messages += _recommended(plan, placement)
    return Decision(
        messages=tuple(messages),
        changes=changes,
        environment=environment(job, accumulation),
        note=f"{placement.verdict.value} {placement.gpu.gpu_type}: {placement.reason} "
        f"micro-batch {micro} x {steps}",
    )


def _refusal(request: GpuRequest | None, judged: Judged) -> str:
    """Why it cannot run; empty where it can, or where that is not known."""
    named = request.gres_type if request is not None else ""
    where = [(k, p) for k, p in judged.others if not named or k.gres_type == named]
    held = [k for k, _ in judged.chosen if not named or k.gres_type == named]
    known = [p for _, p in where if p is not None]
    # The others hold GPUs that only might do, where there are some that do for sure.
    hopeless = all(p.verdict is Verdict.DOES_NOT_FIT for p in known)
    if held or not known or len(known) < len(where) or not hopeless:
        return ""
    largest = max(known, key=lambda p: p.capacity_bytes)
    here = {p.gpu.gpu_type for _, p in (*judged.chosen, *judged.others) if p is not None}
    on = f"gpu:{named}" if named else "any GPU here"
    alternatives = [f"It fits on gpu:{k.gres_type or k.gpu_type}." for k, _ in judged.chosen]
    helping = [*alternatives[:1], *remedies([largest], here)]
    reason = f"It does not fit on {on}. {largest.gpu.gpu_type}: {largest.reason}"
    return " ".join([reason, *helping])


def _recommended(plan: PlanJobResponse, placement: Placement) -> list[str]:
    for one in plan.batch_sizes:
        if one.gpu.gpu_type == placement.gpu.gpu_type and one.recommended_batch_size:
            return [f"Recommended there: batch {one.recommended_batch_size}."]
    return []


def _where(request: GpuRequest | None, judged: Judged) -> Placement:
    """The placement to speak of: on the type asked for, or else on the smallest that does."""
    named = request.gres_type if request is not None else ""
    pairs = (*judged.chosen, *judged.others)
    return next((p for k, p in pairs if p is not None and k.gres_type == named), judged.first)


def _narrowed(
    asked: Mapping[str, str], request: GpuRequest | None, judged: Judged
) -> dict[str, str]:
    """The changes that keep the job on the chosen GPUs: by type, by features, or by node."""
    if request is not None and request.gres_type:
        return {}
    if not judged.others:
        return {} if request is not None else {"gres": "gpu:1"}
    types = {kind.gres_type for kind, _ in judged.chosen}
    other_types = {kind.gres_type for kind, _ in judged.others}
    smallest = judged.chosen[0][0].gres_type
    if len(types) == 1 and "" not in types and not types & other_types:
        return _by_type(request, smallest)
    base = {} if request is not None else {"gres": "gpu:1"}
    features = _features(judged)
    if features and not asked.get("features"):
        return {**base, "features": "|".join(features)}
    chosen_nodes = {node.name for kind, _ in judged.chosen for node in kind.nodes}
    other_nodes = {node.name for kind, _ in judged.others for node in kind.nodes}
    if not chosen_nodes & other_nodes:
        excluded = filter(None, [asked.get("exc_nodes", ""), *sorted(other_nodes)])
        return {**base, "exc_nodes": ",".join(excluded)}
    return _by_type(request, smallest) if smallest and smallest not in other_types else base


def _by_type(request: GpuRequest | None, gres_type: str) -> dict[str, str]:
    if request is None:
        return {"gres": f"gpu:{gres_type}:1"}
    return {request.field: with_type(request, gres_type)}


def _features(judged: Judged) -> list[str]:
    """For each chosen kind a feature that all its nodes have and no other node with GPUs has."""
    elsewhere: set[str] = set()
    for kind, _ in judged.others:
        elsewhere.update(*(node.features for node in kind.nodes))
    found = []
    for kind, _ in judged.chosen:
        shared = frozenset.intersection(*(node.features for node in kind.nodes)) - elsewhere
        if not shared:
            return []
        found.append(min(shared))
    return list(dict.fromkeys(found))
