"""Kubernetes with dynamic resource allocation: a claim on a GPU by product and memory.

https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
https://github.com/NVIDIA/k8s-dra-driver-gpu
"""

from __future__ import annotations

from typing import Any

from memplan_server.dialects.pods import container, pod_document
from memplan_server.dialects.text import documents, mig_profile, products
from memplan_server.dialects.wanted import Candidate, Wanted, alike

__all__ = ["claim_and_pod"]

CLAIM = "gpu"
TEMPLATE = "memplan-gpu"
DRIVER = "gpu.nvidia.com"
_ATTRIBUTES = f"device.attributes['{DRIVER}']"
_MEMORY = f"device.capacity['{DRIVER}'].memory"


def claim_and_pod(request: Wanted) -> str | None:
    """A ResourceClaimTemplate, and a patch of the Pod of each rank that claims by it."""
    named = [(_device_class(c), c) for c in request.candidates if products(c.gpu_type)]
    if not named:
        return None
    device_class = named[0][0]
    exactly = {
        "deviceClassName": device_class,
        "selectors": [{"cel": {"expression": _expression(alike(named))}}],
    }
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": TEMPLATE},
        "spec": {"spec": {"devices": {"requests": [{"name": CLAIM, "exactly": exactly}]}}},
    }
    return documents(template, pod_document(_spec(request)))


def _spec(request: Wanted) -> dict[str, Any]:
    return {
        "resourceClaims": [{"name": CLAIM, "resourceClaimTemplateName": TEMPLATE}],
        "containers": [container(request, {"claims": [{"name": CLAIM}]})],
    }


def _device_class(candidate: Candidate) -> str:
    return "mig.nvidia.com" if candidate.gpu_type.mig_parent else DRIVER


def _expression(candidates: list[Candidate]) -> str:
    """CEL; a device without the attribute or the capacity is passed over and is no error."""
    guards = f"has({_ATTRIBUTES}.productName) && has({_MEMORY})"
    choices = " || ".join(f"({_choice(candidate)})" for candidate in candidates)
    return f"{guards} && ({choices})"


def _choice(candidate: Candidate) -> str:
    """Single quotes, which no name here has in it, spare YAML's readers the escapes."""
    parts = []
    if profile := mig_profile(candidate.gpu_type):
        parts += [f"has({_ATTRIBUTES}.profile)", f"{_ATTRIBUTES}.profile == '{profile}'"]
    names = ", ".join(f"'{name}'" for name in products(candidate.gpu_type))
    parts.append(f"{_ATTRIBUTES}.productName in [{names}]")
    parts.append(f"{_MEMORY}.compareTo(quantity('{candidate.need_mib}Mi')) >= 0")
    return " && ".join(parts)
