"""A Workload and the plans of its Pods become the state of a check."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from memplan.errors import UnavailableError, UnknownNameError
from memplan.kubernetes import annotations as names
from memplan.kubernetes.annotations import Placing
from memplan.kubernetes.kueue.check import Judged, judge, waiting
from memplan.kubernetes.plans import Plan, Request
from memplan.types import GpuTarget, PlanJobRequest, Verdict

PRODUCT = "nvidia.com/gpu.product"
TERM = {"matchExpressions": [{"key": PRODUCT, "operator": "In", "values": ["Tesla-T4"]}]}
Object = dict[str, Any]


def workload(**pods: Object) -> Object:
    """A Workload of annotated Pods, by the name of their set; each with what its template adds."""
    sets = [
        {
            "name": name,
            "template": {
                "metadata": {
                    "annotations": {
                        names.JOB: f"model: {name}\nbatch_size: 1",
                        **more.get("annotations", {}),
                    }
                },
                "spec": {"containers": [], **more.get("spec", {})},
            },
        }
        for name, more in pods.items()
    ]
    assigned = [{"name": name, "flavors": more.get("flavors", {})} for name, more in pods.items()]
    return {
        "spec": {"podSets": sets},
        "status": {"admission": {"podSetAssignments": assigned}},
    }


def judged(item: Object, *, huge: str = "", unknown: str = "", gpus: str = "") -> Judged:
    """With a planner for which all jobs but one fit on a T4, and one GPU is unknown."""

    def planning(request: PlanJobRequest, placing: Placing) -> Plan:
        asked = [gpu.gpu_type for gpu in request.gpus]
        if unknown in asked:
            raise UnknownNameError("no such GPU", name=unknown)
        catalog = request.job.model.catalog
        assert catalog is not None
        fits = catalog.name != huge
        return Plan(
            verdict=Verdict.FITS if fits else Verdict.DOES_NOT_FIT,
            gpu_type="nvidia-t4",
            asked_as=asked[0] if asked else "nvidia-t4",
            expected_bytes=1,
            upper_bound_bytes=2,
            reason=f"nvidia-t4: {'It fits' if fits else 'It is too large'}.",
            request=Request(terms=[TERM]) if fits else None,
        )

    labels = {"t4": {PRODUCT: "Tesla-T4"}, "z9": {PRODUCT: "Z9"}, "any": {}}
    targets = [GpuTarget(gpu_type=name) for name in gpus.split()]
    return judge(item, targets, planning, lambda flavor: labels[flavor])


def test_one_pod_set_that_cannot_run_rejects_all_and_is_named() -> None:
    found = judged(workload(leader={}, worker={}), huge="worker")
    assert (found.state, found.updates) == ("Rejected", ())
    assert found.message == "worker: nvidia-t4: It is too large."


def test_each_pod_set_is_told_its_plan() -> None:
    found = judged(workload(leader={}, worker={}))
    assert found.state == "Ready"
    assert [update["name"] for update in found.updates] == ["leader", "worker"]


def test_a_node_selector_needs_a_gpu_named_by_its_label() -> None:
    assert judged(workload(main={}), gpus="Tesla-T4").updates[0]["nodeSelector"] == {
        PRODUCT: "Tesla-T4"
    }
    # One label of several: nodes with another one would be left out.
    assert "nodeSelector" not in judged(workload(main={}), gpus="nvidia-t4").updates[0]
    assigned = workload(main={"flavors": {"nvidia.com/gpu": "t4", "cpu": "any"}})
    assert "nodeSelector" not in judged(assigned, gpus="Tesla-T4").updates[0]


def test_what_the_webhook_planned_gets_no_selector() -> None:
    text = "model: main\nbatch_size: 1"
    own = names.read({names.JOB: text})
    assert own is not None
    planned = workload(main={"annotations": {names.PLANNED: own.digest}})
    [update] = judged(planned, gpus="Tesla-T4").updates
    assert "nodeSelector" not in update


def test_pods_that_the_webhook_has_not_planned_are_left_to_it() -> None:
    [update] = judged(workload(main={})).updates
    assert names.VERDICT in update["annotations"]
    assert names.PLANNED not in update["annotations"]


def test_an_unknown_gpu_of_a_flavor_is_let_pass_and_one_of_the_job_is_not() -> None:
    assigned = workload(main={"flavors": {"nvidia.com/gpu": "z9"}})
    assert judged(assigned, unknown="Z9").state == "Ready"
    assert judged(workload(main={}), gpus="Z9", unknown="Z9").state == "Rejected"


def test_a_planner_that_is_away_is_no_verdict() -> None:
    def away(request: PlanJobRequest, placing: Placing) -> Plan:
        raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        judge(workload(main={}), [], away, lambda flavor: {})


def test_only_pending_checks_of_ours_wait_and_only_with_quota() -> None:
    states = [("ours", "Pending"), ("done", "Ready"), ("theirs", "Pending")]
    checks = [{"name": name, "state": state} for name, state in states]
    reserved = [{"type": "QuotaReserved", "status": "True"}]
    status: Object = {"admissionChecks": checks, "conditions": reserved}
    assert waiting({"status": status}, {"ours", "done"}) == ["ours"]
    assert waiting({"status": {**status, "conditions": []}}, {"ours"}) == []
    assert waiting({}, {"ours"}) == []


@pytest.mark.slow
def test_both_processes_are_light() -> None:
    code = (
        "import sys, memplan.kubernetes.webhook, memplan.kubernetes.kueue.controller\n"
        "print(sorted({'torch', 'numpy', 'memplan_server'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
