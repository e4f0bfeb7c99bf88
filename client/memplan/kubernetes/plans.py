"""The service's plan for a job, with its request in the words of Kubernetes.

What is asked of Kubernetes is written by the service alone (`PlanJobRequest.scheduler`); here it is
read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from memplan.client import Client
from memplan.kubernetes.annotations import PRODUCT, Placing
from memplan.scheduling.planner import PLAN_TIMEOUT_S
from memplan.scheduling.sentences import environment, micro_batches, remedies
from memplan.types import Placement, PlanJobRequest, PlanJobResponse, Scheduler, Verdict

__all__ = ["Plan", "Request", "make", "parse_request"]

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a Pod has to ask for. Members are as in its spec; empty ones it need not have."""

    terms: Sequence[Mapping[str, Any]] = ()
    """Node selector terms, one of which must apply."""
    tolerations: Sequence[Mapping[str, Any]] = ()
    """Tolerations."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Resources of the container."""
    claims: Sequence[Mapping[str, Any]] = ()
    """Claims of the container."""
    resource_claims: Sequence[Mapping[str, Any]] = ()
    """Claims of the Pod."""
    claim_template: str = ""
    """The ResourceClaimTemplate that they are made from, as YAML. It has to exist."""

    @property
    def products(self) -> tuple[str, ...]:
        """Values of the node label `nvidia.com/gpu.product` that are admitted."""
        expressions = (e for term in self.terms for e in term["matchExpressions"])
        found = (e["values"] for e in expressions if e["key"] == PRODUCT)
        return tuple(dict.fromkeys(value for values in found for value in values))

    def of_any_product(self) -> Request:
        """The same for a Pod that names the product itself, maybe as one whose time is shared."""
        terms = [
            {"matchExpressions": [e for e in term["matchExpressions"] if e["key"] != PRODUCT]}
            for term in self.terms
        ]
        return replace(self, terms=terms)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the service says of a job, and what follows for its object."""

    verdict: Verdict
    """FITS where it does on some GPU asked about, else UNCERTAIN where it does on some."""
    gpu_type: str
    """The smallest GPU of that verdict, the largest one for DOES_NOT_FIT; the rest is about it."""
    asked_as: str
    """The name or alias by which it was asked about."""
    expected_bytes: int
    """Expected device-used bytes."""
    upper_bound_bytes: int
    """Upper bound of them."""
    reason: str
    """The verdict in a sentence."""
    job_digest: str = ""
    """What names the job in metrics and profiles."""
    advice: tuple[str, ...] = ()
    """Sentences for whoever submits the job."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the container."""
    request: Request | None = None
    """None where nothing can be asked for that fits for sure."""


def make(client: Client, request: PlanJobRequest, placing: Placing) -> Plan:
    """Ask the service. Raises MemplanError.

    With a global batch size it is for the GPU that is chosen as if there were none.
    """
    scheduler = Scheduler.DRA if placing is Placing.DRA else Scheduler.KUBERNETES
    request = replace(request, scheduler=scheduler)
    answer = _ask(client, replace(request, global_batch_size=0))
    placements = answer.placements
    placement = _chosen(placements)
    plan = _plan(request, placement, answer)
    if request.global_batch_size:
        answer = _ask(client, replace(request, gpus=(placement.gpu,)))
        plan = _accumulating(request, plan, placement, answer)
    if request.gpus:
        plan = replace(plan, asked_as=request.gpus[placements.index(placement)].gpu_type)
    return plan


def _ask(client: Client, request: PlanJobRequest) -> PlanJobResponse:
    return client.plan_job(
        request.job,
        request.gpus,
        global_batch_size=request.global_batch_size,
        data_parallel_size=request.data_parallel_size,
        headroom_fraction=request.headroom_fraction,
        confidence=request.confidence,
        scheduler=request.scheduler,
        timeout=PLAN_TIMEOUT_S,
    )


def _chosen(placements: Sequence[Placement]) -> Placement:
    """The smallest GPU on which it fits, else on which it may, else the largest."""
    for verdict in (Verdict.FITS, Verdict.UNCERTAIN):
        found = [p for p in placements if p.verdict is verdict]
        if found:
            return min(found, key=lambda p: p.capacity_bytes)
    return max(placements, key=lambda p: p.capacity_bytes)


def _plan(request: PlanJobRequest, placement: Placement, answer: PlanJobResponse) -> Plan:
    """The job as it is described."""
    hopeless = placement.verdict is Verdict.DOES_NOT_FIT
    asked = parse_request(answer.scheduler_request)
    here = {p.gpu.gpu_type for p in answer.placements} if request.gpus else None
    advice = [] if placement.verdict is Verdict.FITS else remedies([placement], here)
    if placement.verdict is Verdict.UNCERTAIN:
        advice.insert(0, "It fits for sure on no GPU asked about, so none is asked for.")
    elif placement.verdict is Verdict.FITS and asked is None:
        advice.append(answer.scheduler_request.lstrip("# ").strip())
    start = "It does not fit on any GPU asked about. " if hopeless else ""
    return Plan(
        verdict=placement.verdict,
        gpu_type=placement.gpu.gpu_type,
        asked_as=placement.gpu.gpu_type,
        expected_bytes=placement.device_used_bytes,
        upper_bound_bytes=placement.upper_bound_bytes,
        reason=f"{start}{placement.gpu.gpu_type}: {placement.reason}",
        job_digest=answer.job_digest,
        advice=tuple(advice),
        environment={} if hopeless else environment(request.job, None),
        request=asked,
    )


def _accumulating(
    request: PlanJobRequest, plan: Plan, placement: Placement, answer: PlanJobResponse
) -> Plan:
    """The same with the micro-batches of the answer, which take what is there.

    They fit although those of the job as it is described may not.
    """
    accumulation = answer.accumulation
    if accumulation is None or not accumulation.feasible:
        why = "" if accumulation is None else accumulation.reason
        return replace(plan, advice=(*plan.advice, why), request=None)
    micro, steps = micro_batches(request.job, accumulation)
    asked = parse_request(answer.scheduler_request)
    return replace(
        plan,
        verdict=Verdict.FITS,
        expected_bytes=accumulation.device_used_bytes,
        upper_bound_bytes=placement.capacity_bytes,
        reason=f"{plan.gpu_type}: micro-batch {micro} x {steps} steps. {accumulation.reason}",
        advice=() if asked else (answer.scheduler_request.lstrip("# ").strip(),),
        environment=environment(request.job, accumulation),
        request=asked,
    )


def parse_request(text: str) -> Request | None:
    """The service's request for Kubernetes, or by a claim; None where it is only a comment."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    if not documents:
        return None
    *templates, pod = documents
    spec = pod["spec"]
    resources = spec["containers"][0]["resources"]
    required = spec.get("affinity", {}).get("nodeAffinity", {})
    request = Request(
        terms=required.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get(
            "nodeSelectorTerms", []
        ),
        tolerations=spec.get("tolerations", []),
        limits=resources.get("limits", {}),
        claims=resources.get("claims", []),
    )
    return _with_claim(request, templates[0], spec["resourceClaims"]) if templates else request


def _with_claim(
    request: Request, template: dict[str, Any], claims: Sequence[Mapping[str, Any]]
) -> Request:
    """Named by what it says: jobs that need the same share a template, and others have another."""
    plain = template["metadata"]["name"]
    text = yaml.safe_dump(template["spec"])
    name = f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    named = {**template, "metadata": {**template["metadata"], "name": name}}
    return replace(
        request,
        resource_claims=[{**claim, "resourceClaimTemplateName": name} for claim in claims],
        claim_template=yaml.safe_dump(named, sort_keys=False),
    )
