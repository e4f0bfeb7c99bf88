"""Pods, Jobs and TrainJobs: where each kind has the Pod's spec, and what is changed there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memplan.kubernetes import annotations as names
from memplan.kubernetes.annotations import Annotations
from memplan.kubernetes.merging import (
    ObjectError,
    add_environment,
    add_request,
    add_resources,
    child,
    gpu_resources,
    trainer,
)
from memplan.kubernetes.plans import MIB, Plan
from memplan.scheduling.sentences import one_line

__all__ = ["KINDS", "annotations_of", "planned", "product_of", "results"]

Object = dict[str, Any]
MANAGER = "memplan.dev/webhook"
"""Who owns the entry in a TrainJob's `runtimePatches`."""
NODE = "node"
"""The replicated job that trains, in every runtime of Kubeflow Trainer."""
_LONGEST_REASON = 1000


def annotations_of(item: Mapping[str, Any]) -> dict[str, str]:
    """The annotations of an object or a template. Raises ObjectError."""
    metadata = item.get("metadata") or {}
    found = metadata.get("annotations") or {} if isinstance(metadata, Mapping) else None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ObjectError("its annotations are not texts by name.")
    return found


def product_of(item: Mapping[str, Any], kind: str) -> str:
    """The GPU that the node selector of the Pods asks for; empty for any, or where it is not here.

    Raises ObjectError.
    """
    holder: Any = item
    for name in PODS[kind]:
        holder = holder.get(name) or {}
        if not isinstance(holder, Mapping):
            raise ObjectError(f"{name} is no object.")
    return names.selected(holder)


def planned(item: Object, kind: str, asked: Annotations, plan: Plan) -> tuple[Object, list[str]]:
    """The object with its plan, and sentences about what could not be done.

    Planned twice it is as planned once. Raises ObjectError.
    """
    changed = copy.deepcopy(item)
    notes = KINDS[kind](changed, asked, plan)
    _annotate(changed, results(asked, plan))
    return changed, notes


def results(asked: Annotations, plan: Plan) -> dict[str, str]:
    """The plan as annotations; memory as quantities, rounded up."""
    found = {
        names.PLANNED: asked.digest,
        names.VERDICT: plan.verdict.value,
        names.GPU_TYPE: plan.gpu_type,
        names.EXPECTED: _quantity(plan.expected_bytes),
        names.UPPER_BOUND: _quantity(plan.upper_bound_bytes),
        names.REASON: one_line(plan.reason, _LONGEST_REASON),
        names.JOB_DIGEST: plan.job_digest,
    }
    if plan.request is not None and plan.request.claim_template:
        found[names.CLAIM_TEMPLATE] = plan.request.claim_template
    return found


def _pod(pod: Object, asked: Annotations, plan: Plan) -> list[str]:
    return _within(child(pod, "spec"), asked, plan)


def _job(job: Object, asked: Annotations, plan: Plan) -> list[str]:
    """Its Pods say what the Job says: they are not planned again, and Kueue sees it in them."""
    template = child(child(job, "spec"), "template")
    own = annotations_of(job)
    said = {name: own[name] for name in names.READ if name in own}
    _annotate(template, {**said, **results(asked, plan)})
    return _within(child(template, "spec"), asked, plan)


def _train_job(job: Object, asked: Annotations, plan: Plan) -> list[str]:
    """https://www.kubeflow.org/docs/components/trainer/operator-guides/runtime-patches/

    The Pods come from a runtime that is not seen here. They get the annotations, and so the rest
    when they are created; GPUs are asked for here, so that queues count them.
    """
    spec = child(job, "spec")
    own = annotations_of(job)
    _patch_runtime(spec, {name: own[name] for name in names.READ if name in own})
    if not plan.environment:
        return []
    container = child(spec, "trainer")
    notes = add_environment(container, plan.environment)
    present = gpu_resources(container.get("resourcesPerNode") or {})
    if plan.request is not None and plan.request.limits and not present:
        add_resources(container, plan.request, "resourcesPerNode")
    return notes


def _patch_runtime(spec: Object, annotations: Mapping[str, str]) -> None:
    template = {"metadata": {"annotations": dict(annotations)}}
    replicated = {"name": NODE, "template": {"spec": {"template": template}}}
    runtime = {"template": {"spec": {"replicatedJobs": [replicated]}}}
    patches = child(spec, "runtimePatches", list)
    if not any(isinstance(one, dict) and one.get("manager") == MANAGER for one in patches):
        patches.append({"manager": MANAGER, "trainingRuntimeSpec": runtime})


KINDS: Mapping[str, Callable[[Object, Annotations, Plan], list[str]]] = {
    "/v1/Pod": _pod,
    "batch/v1/Job": _job,
    "trainer.kubeflow.org/v1alpha1/TrainJob": _train_job,
}
"""What is done to each kind, by group, version and kind."""
PODS: Mapping[str, Sequence[str]] = {
    "/v1/Pod": ("spec",),
    "batch/v1/Job": ("spec", "template", "spec"),
    "trainer.kubeflow.org/v1alpha1/TrainJob": ("spec",),
}
"""Where the spec of its Pods is; a TrainJob has none, and no node selector there either."""


def _within(spec: Object, asked: Annotations, plan: Plan) -> list[str]:
    """Plan the Pod with that spec."""
    container = trainer(spec, asked.container)
    notes = add_environment(container, plan.environment) if plan.environment else []
    if plan.request is not None:
        selected = names.selected(spec)
        request = plan.request.of_any_product() if selected else plan.request
        notes += add_request(spec, container, request)
    return notes


def _annotate(item: Object, annotations: Mapping[str, str]) -> None:
    child(child(item, "metadata"), "annotations").update(annotations)


def _quantity(size_bytes: int) -> str:
    return f"{-(-size_bytes // MIB)}Mi"
