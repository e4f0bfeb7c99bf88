"""Kubernetes: a Pod with node affinity on the labels of GPU Feature Discovery; a Job for Kueue.

https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memplan.types import GpuType
from memplan_server.dialects.text import documents, labels, mig_profile
from memplan_server.dialects.wanted import Candidate, Wanted, alike

__all__ = ["CONTAINER", "affinity", "container", "pod", "pod_document", "queued_job"]

CONTAINER = "trainer"
GPU = "nvidia.com/gpu"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUE = "user-queue"
"""The queue of Kueue's own examples."""


def pod(request: Wanted) -> str | None:
    """A patch of the Pod of each rank."""
    spec = _spec(request)
    return None if spec is None else documents(pod_document(spec))


def queued_job(request: Wanted) -> str | None:
    """A suspended Job, which Kueue starts: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/

    Kueue takes the flavor whose node labels the affinity admits.
    """
    spec = _spec(request)
    if spec is None:
        return None
    ranks = request.rank_count
    parallel = {"parallelism": ranks, "completions": ranks, "completionMode": "Indexed"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "memplan-job", "labels": {QUEUE_LABEL: QUEUE}},
        "spec": {
            "suspend": True,
            **parallel,
            "template": {"spec": {"restartPolicy": "Never", **spec}},
        },
    }
    return documents(job)


def pod_document(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A Pod to patch another with: it names what it changes."""
    metadata: dict[str, Any] = {"name": "memplan-job"}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(spec)}


def container(request: Wanted, resources: Mapping[str, Any]) -> dict[str, Any]:
    """The container that trains."""
    environment = [{"name": name, "value": value} for name, value in request.environment.items()]
    parts = {"env": environment, "resources": dict(resources)}
    return {"name": CONTAINER, **{name: part for name, part in parts.items() if part}}


def affinity(terms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nodes to which any of the terms applies."""
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _spec(request: Wanted) -> dict[str, Any] | None:
    named = [(_resource(c.gpu_type), c) for c in request.candidates if labels(c.gpu_type)]
    if not named:
        return None
    resource = named[0][0]
    limits = {"limits": {resource: 1}}
    return {
        "affinity": affinity([_term(candidate) for candidate in alike(named)]),
        "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container(request, limits)],
    }


def _term(candidate: Candidate) -> dict[str, Any]:
    """Nodes with this GPU type that report enough memory; `Gt` is strict."""
    key = _resource(candidate.gpu_type)
    products = {
        "key": "nvidia.com/gpu.product",
        "operator": "In",
        "values": labels(candidate.gpu_type),
    }
    memory = {
        "key": f"{key}.memory",
        "operator": "Gt",
        "values": [str(candidate.need_mib - 1)],
    }
    return {"matchExpressions": [products, memory]}


def _resource(gpu_type: GpuType) -> str:
    """`nvidia.com/gpu`, or the resource of a MIG profile (strategy `mixed`)."""
    profile = mig_profile(gpu_type)
    return f"nvidia.com/mig-{profile}" if profile else GPU
