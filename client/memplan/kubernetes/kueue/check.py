"""A Workload and the plans of its Pods become the state of the check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memplan.errors import InvalidRequestError, UnknownNameError
from memplan.kubernetes import annotations as names
from memplan.kubernetes.annotations import AnnotationError, Annotations, Placing
from memplan.kubernetes.merging import ObjectError
from memplan.kubernetes.objects import annotations_of, results
from memplan.kubernetes.plans import Plan
from memplan.scheduling.sentences import one_line
from memplan.types import GpuTarget, PlanJobRequest, Verdict

__all__ = ["CONTROLLER", "Judged", "answered", "judge", "waiting"]

CONTROLLER = "memplan.dev/planner"
PENDING, READY, REJECTED, RETRY = "Pending", "Ready", "Rejected", "Retry"
LONGEST_MESSAGE = 2000
NOTHING = "No Pod of this workload has the annotation memplan.dev/job: nothing is to be planned."

Object = dict[str, Any]
Planning = Callable[[PlanJobRequest, Placing], Plan]
Flavors = Callable[[str], Mapping[str, str]]
"""The node labels of a ResourceFlavor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The state of a check."""

    state: str
    """Ready, Rejected or Retry."""
    message: str
    """Why, in sentences."""
    updates: Sequence[Object] = field(default_factory=tuple)
    """`podSetUpdates`."""

    @property
    def reason(self) -> str:
        """For an Event."""
        return {READY: "Planned", REJECTED: "DoesNotFit", RETRY: "PlannerAway"}[self.state]


@dataclass(frozen=True, kw_only=True, slots=True)
class _PodSet:
    """Pods of a Workload that are planned."""

    name: str
    template: Object
    asked: Annotations
    product: str
    """The GPU that they will get; empty where that is open."""


def waiting(workload: Object, checks: set[str]) -> list[str]:
    """The checks among those that wait for an answer: quota is reserved, and nothing said."""
    status = workload.get("status") or {}
    conditions = status.get("conditions") or []
    reserved = any(c["type"] == "QuotaReserved" and c["status"] == "True" for c in conditions)
    if not reserved:
        return []
    return [c["name"] for c in _states(workload, checks) if c["state"] == PENDING]


def answered(workload: Object, checks: set[str]) -> list[Object]:
    """The states of the checks among those that have their answer."""
    return [one for one in _states(workload, checks) if one["state"] != PENDING]


def _states(workload: Object, checks: set[str]) -> list[Object]:
    found = (workload.get("status") or {}).get("admissionChecks") or []
    return [one for one in found if one["name"] in checks]


def judge(
    workload: Object, gpus: Sequence[GpuTarget], planning: Planning, flavors: Flavors
) -> Judged:
    """Whether the Pods fit on the GPUs that they will get; `gpus` are those of the cluster.

    Raises MemplanError where the service does not answer.
    """
    try:
        planned = [(pods, _planned(pods, gpus, planning)) for pods in _pod_sets(workload, flavors)]
    except (AnnotationError, ObjectError, InvalidRequestError, UnknownNameError) as error:
        message = one_line(
            f"The job is described wrongly: {names.mistakes(error)}", LONGEST_MESSAGE
        )
        return Judged(state=REJECTED, message=message)
    if not planned:
        return Judged(state=READY, message=NOTHING)
    hopeless = [plan for _, plan in planned if plan and plan.verdict is Verdict.DOES_NOT_FIT]
    said = [_sentence(pods, plan) for pods, plan in planned if plan in hopeless or not hopeless]
    return Judged(
        state=REJECTED if hopeless else READY,
        message=one_line(" ".join(said), LONGEST_MESSAGE),
        updates=() if hopeless else [_update(pods, plan) for pods, plan in planned if plan],
    )


def _pod_sets(workload: Object, flavors: Flavors) -> list[_PodSet]:
    assigned = (workload.get("status") or {}).get("admission") or {}
    by_name = {one["name"]: one for one in assigned.get("podSetAssignments") or []}
    found = []
    for pods in workload["spec"]["podSets"]:
        asked = names.read(annotations_of(pods["template"]))
        if asked is not None:
            name = pods.get("name", "main")
            product = _product(pods["template"], by_name.get(name) or {}, flavors)
            found.append(
                _PodSet(name=name, template=pods["template"], asked=asked, product=product)
            )
    return found


def _product(template: Object, assignment: Object, flavors: Flavors) -> str:
    """The GPU by the Pod's own node selector, or by the flavor that Kueue assigned."""
    if own := names.selected(template["spec"]):
        return own
    assigned = assignment.get("flavors") or {}
    labels = [flavors(flavor) for flavor in dict.fromkeys(assigned.values())]
    found = next((one[names.PRODUCT] for one in labels if names.PRODUCT in one), "")
    return names.without_sharing(found)


def _planned(pods: _PodSet, gpus: Sequence[GpuTarget], planning: Planning) -> Plan | None:
    """The plan; None where the GPU is not known, which may hold anything."""
    request, placing = names.asked(pods.asked, gpus, Placing.AFFINITY, pods.product)
    try:
        return planning(request, placing)
    except UnknownNameError as error:
        if not pods.product or error.name != pods.product:
            raise
        return None


def _sentence(pods: _PodSet, plan: Plan | None) -> str:
    if plan is None:
        return f"{pods.name}: {pods.product} is no GPU that memplan knows; nothing is planned."
    return " ".join([f"{pods.name}: {plan.reason}", *plan.advice])


def _update(pods: _PodSet, plan: Plan) -> Object:
    """What is added to the Pods. Kueue admits no Workload for which a key is given anew."""
    own = annotations_of(pods.template)
    # The webhook has still to plan the Pods of a template that it has not: only it sets variables.
    left_out = {names.PLANNED, *own}
    added = {k: v for k, v in results(pods.asked, plan).items() if k not in left_out}
    update: Object = {"name": pods.name}
    if added:
        update["annotations"] = added
    if plan.request is None or own.get(names.PLANNED) == pods.asked.digest:
        return update  # the webhook has asked for the GPUs
    if not pods.product and plan.asked_as in plan.request.products:
        update["nodeSelector"] = {names.PRODUCT: plan.asked_as}
    present = pods.template["spec"].get("tolerations") or []
    if missing := [one for one in plan.request.tolerations if one not in present]:
        update["tolerations"] = missing
    return update
