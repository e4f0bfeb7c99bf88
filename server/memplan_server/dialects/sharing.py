"""Kubernetes schedulers that give a Pod part of a GPU: KAI, HAMi, Volcano.

Their memory is in MiB, and one figure holds on whatever GPU the Pod gets: the largest need counts.
Slices of MIG are not shared further.

https://github.com/NVIDIA/KAI-Scheduler/tree/main/docs/gpu-sharing
https://project-hami.io/docs/userguide/nvidia-device/specify-device-memory-usage
https://volcano.sh/en/docs/gpu_virtualization/
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memplan_server.dialects.pods import affinity, container, pod_document
from memplan_server.dialects.text import documents, labels, products
from memplan_server.dialects.wanted import Candidate, Wanted

__all__ = ["hami_pod", "kai_pod", "volcano_pod"]


def kai_pod(request: Wanted) -> str | None:
    """The annotation `gpu-memory`; KAI keeps nobody from taking more."""
    shared = _shared(request)
    if shared is None:
        return None
    spec = {"schedulerName": "kai-scheduler", **_spec(shared, {})}
    return documents(pod_document(spec, {"gpu-memory": str(shared.need_mib)}))


def hami_pod(request: Wanted) -> str | None:
    """The resource `nvidia.com/gpumem`, which HAMi holds the container to."""
    shared = _shared(request)
    if shared is None:
        return None
    limits = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": shared.need_mib}
    names = ",".join(name for c in shared.candidates for name in products(c.gpu_type))
    spec = _spec(shared, {"limits": limits})
    return documents(pod_document(spec, {"nvidia.com/use-gputype": names}))


def volcano_pod(request: Wanted) -> str | None:
    """The resource `volcano.sh/vgpu-memory`, which Volcano's device plugin holds it to."""
    shared = _shared(request)
    if shared is None:
        return None
    limits = {"volcano.sh/vgpu-number": 1, "volcano.sh/vgpu-memory": shared.need_mib}
    return documents(
        pod_document({"schedulerName": "volcano", **_spec(shared, {"limits": limits})})
    )


def _shared(request: Wanted) -> Wanted | None:
    """The request for whole GPUs with room for its largest need; None where there are none."""
    whole = [c for c in request.candidates if not c.gpu_type.mig_parent and labels(c.gpu_type)]
    if not whole:
        return None
    need = whole[0].need_bytes
    kept: list[Candidate] = []
    for candidate in whole:  # one that is too small for what the others need is left out
        largest = max(need, candidate.need_bytes)
        if all(c.gpu_type.usable_bytes >= largest for c in (*kept, candidate)):
            kept.append(candidate)
            need = largest
    return replace(request, candidates=tuple(kept))


def _spec(request: Wanted, resources: dict[str, Any]) -> dict[str, Any]:
    values = [label for c in request.candidates for label in labels(c.gpu_type)]
    product = {"key": "nvidia.com/gpu.product", "operator": "In", "values": values}
    return {
        "affinity": affinity([{"matchExpressions": [product]}]),
        "containers": [container(request, resources)],
    }
