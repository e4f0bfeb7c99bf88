"""Kueue's objects, and the controller of the admission check as a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_cluster import GROUP
from processes import running

SMALL = """\
model: {layers: [flatten, linear: 4096, relu, linear: 10]}
inputs: [3x32x32]
optimizer: adam
batch_size: 256
"""
HUGE = """\
model: {layers: [flatten, linear: 65536, relu, linear: 10]}
inputs: [3x224x224]
optimizer: adam
batch_size: 8
"""
Object = dict[str, Any]


def admission_check(name: str, controller: str = "memplan.dev/planner") -> Object:
    return {
        "apiVersion": GROUP,
        "kind": "AdmissionCheck",
        "metadata": {"name": name, "generation": 1},
        "spec": {"controllerName": controller},
    }


def flavor(name: str, **labels: str) -> Object:
    return {
        "apiVersion": GROUP,
        "kind": "ResourceFlavor",
        "metadata": {"name": name},
        "spec": {"nodeLabels": {f"nvidia.com/{key}": value for key, value in labels.items()}},
    }


def workload(
    name: str,
    job: str | None,
    *,
    reserved: bool = True,
    flavor_name: str = "any",
    node_selector: dict[str, str] | None = None,
    **annotations: str,
) -> Object:
    """A Workload of a Job as Kueue makes it; with quota its check is pending."""
    own = {f"memplan.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    if job is not None:
        own["memplan.dev/job"] = job
    spec: Object = {"restartPolicy": "Never", "containers": [{"name": "t", "image": "train:1"}]}
    if node_selector:
        spec["nodeSelector"] = node_selector
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": f"job-{name}"}
    status: Object = {
        "conditions": [
            {
                "type": "QuotaReserved",
                "status": "True" if reserved else "False",
                "reason": "QuotaReserved",
                "message": "Quota reserved in ClusterQueue gpus",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        "admissionChecks": [
            {
                "name": one,
                "state": "Pending",
                "message": "It is to be checked.",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for one in ("memplan", "others")
        ],
        "admission": {
            "clusterQueue": "gpus",
            "podSetAssignments": [
                {"name": "main", "flavors": {"nvidia.com/gpu": flavor_name, "cpu": flavor_name}}
            ],
        },
    }
    return {
        "apiVersion": GROUP,
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "ml", "ownerReferences": [owner]},
        "spec": {
            "queueName": "user-queue",
            "podSets": [
                {
                    "name": "main",
                    "count": 1,
                    "template": {"metadata": {"annotations": own}, "spec": spec},
                }
            ],
        },
        "status": status,
    }


@contextmanager
def controlling(kubeconfig: Path, server: str, *options: str) -> Iterator[int]:
    """The controller as a process; the port of its probes."""
    words = ["kueue", "--kubeconfig", str(kubeconfig), "--server", server, "--metrics-port", "0"]
    with running(*words, *options) as (_, (port,)):
        yield port
