"""A request for GPUs within the spec of a Pod, beside what the user wrote there.

Nothing of the user's is taken away or replaced, and what is merged twice is there once. Specs are
plain data and are changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memplan.kubernetes.plans import Request

__all__ = [
    "ObjectError",
    "add_environment",
    "add_request",
    "add_resources",
    "child",
    "gpu_resources",
    "trainer",
]

_VENDOR = "nvidia.com/"


class ObjectError(ValueError):
    """An object is not of the form that its kind has."""


def child(parent: dict[str, Any], name: str, kind: type[Any] = dict) -> Any:
    """The member, made where there is none. Raises ObjectError for one of another type."""
    if parent.get(name) is None:
        parent[name] = kind()
    found = parent[name]
    if not isinstance(found, kind):
        raise ObjectError(f"{name} is a {type(found).__name__}, not a {kind.__name__}.")
    return found


def trainer(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """The container of that name; without one the first that asks for a GPU, else the first."""
    containers = child(spec, "containers", list)
    if not containers or not all(isinstance(one, dict) for one in containers):
        raise ObjectError("it has no containers.")
    if name:
        for container in containers:
            if container.get("name") == name:
                return container  # type: ignore[no-any-return]
        names = ", ".join(str(container.get("name")) for container in containers)
        raise ObjectError(f"it has no container {name!r}, only {names}.")
    asking = (one for one in containers if gpu_resources(one.get("resources") or {}))
    return next(asking, containers[0])


def gpu_resources(resources: Mapping[str, Any]) -> set[str]:
    """The GPUs that a container asks for already: resources of NVIDIA, and `claims`."""
    asked = {*(resources.get("limits") or {}), *(resources.get("requests") or {})}
    found = {name for name in asked if name.startswith(_VENDOR)}
    return found | {"claims"} if resources.get("claims") else found


def add_environment(container: dict[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Add variables that it does not have; returns a sentence for each that it has otherwise."""
    variables = child(container, "env", list)
    present = {one.get("name"): one for one in variables}
    notes = []
    for name, value in environment.items():
        if name not in present:
            variables.append({"name": name, "value": value})
        elif present[name].get("value") != value:
            notes.append(f"{name} is set already and stays; planned is {value}.")
    return notes


def add_request(spec: dict[str, Any], container: dict[str, Any], request: Request) -> list[str]:
    """Ask for the GPUs; returns a sentence where the user asks for others and nothing is added."""
    if others := _others(spec, container.get("resources") or {}, request):
        wanted = ", ".join(request.limits) or "a claim"
        return [f"The container asks for {others} itself: {wanted} is not added."]
    add_resources(container, request)
    if request.resource_claims:
        _add_missing(child(spec, "resourceClaims", list), request.resource_claims)
    if request.tolerations:
        _add_missing(child(spec, "tolerations", list), request.tolerations)
    _add_terms(spec, request.terms)
    return []


def _others(spec: Mapping[str, Any], resources: Mapping[str, Any], request: Request) -> str:
    """GPUs asked for that are not those of the request; a claim may be its own from before."""
    claims = {claim["name"]: claim for claim in request.resource_claims}
    of_pod = [claim for claim in spec.get("resourceClaims") or [] if claim.get("name") in claims]
    own = all(claim == claims[claim["name"]] for claim in of_pod) and all(
        claim in request.claims for claim in resources.get("claims") or []
    )
    found = gpu_resources(resources) - set(request.limits) - ({"claims"} if own else set())
    return ", ".join(sorted(found if own else found | {"claims"}))


def add_resources(container: dict[str, Any], request: Request, name: str = "resources") -> None:
    """Limits and claims, except where the container asks for as many as it wants."""
    if request.limits:
        resources = child(container, name)
        limits = child(resources, "limits")
        for resource, count in request.limits.items():
            if resource not in (resources.get("requests") or {}):
                limits.setdefault(resource, count)
    if request.claims:
        _add_missing(child(child(container, name), "claims", list), request.claims)


def _add_missing(present: list[Any], wanted: Sequence[Mapping[str, Any]]) -> None:
    present.extend(one for one in wanted if one not in present)


def _add_terms(spec: dict[str, Any], wanted: Sequence[Mapping[str, Any]]) -> None:
    """Any of the wanted terms, and any of the user's.

    Terms are alternatives: each of the user's is joined with each of the wanted, unless it says one
    of them already.
    """
    if not wanted:
        return
    node = child(child(spec, "affinity"), "nodeAffinity")
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        required = child(node, "requiredDuringSchedulingIgnoredDuringExecution")
        required["nodeSelectorTerms"] = [dict(term) for term in wanted]
        return
    if not isinstance(required, dict):
        raise ObjectError("the required node affinity is no object.")
    theirs = child(required, "nodeSelectorTerms", list)
    required["nodeSelectorTerms"] = [one for term in theirs for one in _joined(term, wanted)]


def _joined(
    term: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    own = term.get("matchExpressions") or []
    if not own and not term.get("matchFields"):
        return [term]  # an empty term applies to no node
    if any(all(e in own for e in ours["matchExpressions"]) for ours in wanted):
        return [term]
    return [{**term, "matchExpressions": [*own, *ours["matchExpressions"]]} for ours in wanted]
