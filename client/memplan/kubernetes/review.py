"""An AdmissionReview is answered.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import base64
import json
import logging
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from memplan.client import Client
from memplan.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidRequestError,
    MemplanError,
    UnavailableError,
    UnknownNameError,
)
from memplan.kubernetes import annotations as names
from memplan.kubernetes import plans
from memplan.kubernetes.annotations import AnnotationError, Annotations, Placing, Policy
from memplan.kubernetes.merging import ObjectError
from memplan.kubernetes.objects import KINDS, annotations_of, planned, product_of
from memplan.kubernetes.patch import difference
from memplan.scheduling.planner import Planner
from memplan.scheduling.sentences import one_line
from memplan.types import GpuTarget, Verdict

__all__ = ["Answer", "ReviewError", "Reviewer", "parse", "response", "unplanned"]

log = logging.getLogger(__name__)

API_VERSION = "admission.k8s.io/v1"
LONGEST_WARNING = 250
"""The API server cuts those above 256 signs."""
LONGEST_TOGETHER = 4000
"""It leaves out those after 4,096 signs."""
LONGEST_REFUSAL = 3000
LATE = "memplan has no plan in time; the object is admitted as it is."
DEFECT = "memplan failed; the object is admitted as it is."
AS_IT_IS = "The object is admitted as it is."


class ReviewError(ValueError):
    """Not an AdmissionReview."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What becomes of an object."""

    outcome: str
    """planned, unplanned, ignored, rejected, invalid, late or failed."""
    patch: Sequence[Mapping[str, Any]] = ()
    """Operations of a JSON Patch."""
    warnings: Sequence[str] = ()
    """Sentences for the user."""
    refusal: str = ""
    """Why it is rejected; empty where it is not."""
    code: int = 403
    """Status code of the rejection."""


def unplanned(outcome: str, *sentences: str) -> Answer:
    """The object is admitted as it is."""
    return Answer(outcome=outcome, warnings=_warnings(sentences))


def parse(body: bytes) -> Mapping[str, Any]:
    """The request in an AdmissionReview. Raises ReviewError."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ReviewError(f"the body is no JSON: {error}") from error
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise ReviewError("the body is no AdmissionReview")
    if review.get("apiVersion") != API_VERSION:
        raise ReviewError(f"apiVersion is {review.get('apiVersion')!r}, not {API_VERSION}")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise ReviewError("the AdmissionReview has no request with a uid")
    return request


def response(uid: str, answer: Answer) -> dict[str, Any]:
    """The AdmissionReview that answers."""
    found: dict[str, Any] = {"uid": uid, "allowed": not answer.refusal}
    if answer.refusal:
        # Of the reason Invalid, older kubectl (1.20) shows no message.
        reason = "Forbidden" if answer.code == 403 else "BadRequest"
        message = one_line(answer.refusal, LONGEST_REFUSAL)
        found["status"] = {"code": answer.code, "reason": reason, "message": message}
    if answer.patch:
        text = json.dumps(answer.patch, separators=(",", ":"))
        found["patchType"] = "JSONPatch"
        found["patch"] = base64.b64encode(text.encode()).decode()
    if answer.warnings:
        found["warnings"] = list(answer.warnings)
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": found}


class Reviewer:
    """Decides what becomes of objects. Safe to use from several threads."""

    def __init__(
        self,
        client: Client,
        *,
        gpus: Sequence[GpuTarget] = (),
        placing: Placing = Placing.AFFINITY,
        policy: Policy = Policy.WARN,
        patience_s: float = 8.0,
    ) -> None:
        """Settings are for objects that say nothing else; `patience_s` is for a plan under way."""
        self._client = client
        self._planner: Planner[plans.Plan] = Planner(client)
        self._gpus = tuple(gpus)
        self._placing = placing
        self._policy = policy
        self._patience_s = patience_s

    def close(self) -> None:
        """Start no more plans."""
        self._planner.close()

    def review(self, request: Mapping[str, Any], policy: Policy | None = None) -> Answer:
        """Answer the request of a review; `policy` is that of its namespace."""
        item = request.get("object")
        kind = kind_of(request)
        if request.get("operation") != "CREATE" or kind not in KINDS or not isinstance(item, dict):
            return unplanned("ignored")
        policy = policy or self._policy
        try:
            asked = names.read(annotations_of(item))
            if asked is None or annotations_of(item).get(names.PLANNED) == asked.digest:
                return unplanned("ignored")
            policy = asked.policy or policy
            return self._planned(item, kind, asked, policy)
        except (
            AnnotationError,
            ObjectError,
            InvalidRequestError,
            UnknownNameError,
        ) as error:
            return _invalid(error, policy)
        except (UnavailableError, DeadlineExceededError, CancelledError):
            return unplanned("late", LATE)
        except MemplanError as error:
            log.warning("the service failed: %s", error)
            return unplanned("failed", str(error), DEFECT)

    def _planned(
        self, item: dict[str, Any], kind: str, asked: Annotations, policy: Policy
    ) -> Answer:
        product = product_of(item, kind)
        request, placing = names.asked(asked, self._gpus, self._placing, product)
        make = partial(plans.make, self._client, request, placing)
        future = self._planner.plan(repr((request, placing)), make)
        if not self._planner.wait(future, self._patience_s, lambda: None):
            return unplanned("late", LATE)
        try:
            plan = future.result()
        except UnknownNameError as error:
            if not product or error.name != product:
                raise
            return unplanned("unplanned", f"{product} is no GPU that memplan knows. {AS_IT_IS}")
        hopeless = plan.verdict is Verdict.DOES_NOT_FIT
        if hopeless and policy is Policy.REJECT:
            return Answer(outcome="rejected", refusal=" ".join((plan.reason, *plan.advice)))
        return self._admitted(item, kind, asked, plan)

    def _admitted(
        self, item: dict[str, Any], kind: str, asked: Annotations, plan: plans.Plan
    ) -> Answer:
        """With the plan, and what there is to say of it."""
        changed, notes = planned(item, kind, asked, plan)
        said = [*plan.advice, *notes]
        if plan.verdict is not Verdict.FITS:
            said.insert(0, plan.reason)
        if plan.request is not None and plan.request.claim_template:
            said.append(_missing_template(plan.request))
        return Answer(
            outcome="unplanned" if plan.request is None else "planned",
            patch=difference(item, changed),
            warnings=_warnings(said),
        )


def kind_of(request: Mapping[str, Any]) -> str:
    """Group, version and kind of the object, as in `KINDS`; empty where the request has none."""
    kind = request.get("kind")
    if not isinstance(kind, dict):
        return ""
    return f"{kind.get('group', '')}/{kind.get('version')}/{kind.get('kind')}"


def _missing_template(request: plans.Request) -> str:
    """Whoever answers a review may make nothing: it may be a dry run, or be rejected after all."""
    name = request.resource_claims[0]["resourceClaimTemplateName"]
    return f"Its Pods wait for the ResourceClaimTemplate {name}: apply what the annotation " + (
        f"{names.CLAIM_TEMPLATE} says, once for all jobs with that need."
    )


def _invalid(error: Exception, policy: Policy) -> Answer:
    text = f"memplan: {names.mistakes(error)}"
    if policy is Policy.REJECT:
        return Answer(outcome="invalid", refusal=text, code=400)
    return unplanned("invalid", text, AS_IT_IS)


def _warnings(sentences: Sequence[str]) -> list[str]:
    """Lines that the API server passes on whole."""
    lines = [line for text in sentences for line in text.splitlines()]
    short = [one_line(line, LONGEST_REFUSAL) for line in lines]
    parts = [part for line in short for part in textwrap.wrap(line, LONGEST_WARNING)]
    while sum(map(len, parts)) > LONGEST_TOGETHER:
        del parts[-2]  # the last one says what has become of the object
    return parts
