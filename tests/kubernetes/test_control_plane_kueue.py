"""The controller of the admission check before a real API server, with the rights it is given.

Kueue itself does not run: what its controllers write is written here, as their field manager.
"""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from control_plane import ControlPlane, wait_for
from fake_cluster import GROUP
from kubernetes import client, config
from kueue_objects import HUGE, SMALL, admission_check, controlling, flavor, workload
from record_reviews import custom_resources
from reviewing import ROOT

from memplan.kubernetes.kueue.cluster import ApiException, connect
from memplan_server.app import RunningServer

pytestmark = pytest.mark.integration
FOLDER = ROOT / "deploy/kubernetes/kueue"
Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kueue:
    """What Kueue writes, and what is to be seen of the answers."""

    plane: ControlPlane
    objects: client.CustomObjectsApi
    port: int
    """Of the controller's probes."""

    def reserve(self, item: Object) -> None:
        """Create a Workload, and reserve its quota."""
        self.plane.kubectl("apply", "--filename", "-", given=item)
        stored = self.plane.get("workload", item["metadata"]["name"])
        self.write({**stored, "status": item["status"]})

    def write(self, item: Object, manager: str = "kueue-admission") -> None:
        """Apply the status of a Workload as Kueue does."""
        metadata = {name: item["metadata"][name] for name in ("name", "namespace", "uid")}
        kind = {name: item[name] for name in ("apiVersion", "kind")}
        self.objects.patch_namespaced_custom_object_status(
            *GROUP.split("/"),
            "ml",
            "workloads",
            metadata["name"],
            {**kind, "metadata": metadata, "status": item["status"]},
            field_manager=manager,
            force=True,
            _content_type="application/apply-patch+yaml",
        )

    def checks(self, name: str) -> dict[str, Object]:
        """The states of a Workload's checks, by their names."""
        status = self.plane.get("workload", name)["status"]
        return {one["name"]: one for one in status["admissionChecks"]}

    def answered(self, name: str, *checks: str) -> dict[str, Object]:
        """The states once none of those is pending."""
        wait_for(
            lambda: all(self.checks(name)[c]["state"] != "Pending" for c in checks or ["memplan"]),
            "there is no answer",
        )
        return self.checks(name)


def account(plane: ControlPlane) -> str:
    """The token of the controller's service account, with the rights of the manifests."""
    for name in ("serviceaccount", "clusterrole", "clusterrolebinding"):
        plane.kubectl("apply", "--namespace", "memplan", "--filename", str(FOLDER / f"{name}.yaml"))

    def secrets() -> list[Object]:
        return plane.get("serviceaccount", "memplan-kueue", "memplan").get("secrets", [])

    wait_for(lambda: bool(secrets()), "the service account gets no token")
    secret = plane.get("secret", secrets()[0]["name"], "memplan")
    return base64.b64decode(secret["data"]["token"]).decode()


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
            return True
    except urllib.error.HTTPError:
        return False


@pytest.fixture(scope="module")
def kueue(plane: ControlPlane, server: RunningServer) -> Iterator[Kueue]:
    """The controller; it is there before Kueue is installed."""
    settings = client.Configuration()
    config.load_kube_config(str(plane.kubeconfig("administrator")), client_configuration=settings)
    gpus = ["--gpu", "NVIDIA-A100-SXM4-40GB", "--gpu", "Tesla-T4"]
    path = plane.kubeconfig(account(plane))
    with controlling(path, f"127.0.0.1:{server.port}", *gpus) as port:
        assert not ready(port)
        custom_resources(plane, "kueue")
        checks = [admission_check("memplan"), admission_check("second")]
        others = [admission_check("others", "example.org/other"), flavor("any")]
        plane.kubectl("apply", "--filename", "-", given=[*checks, *others])
        wait_for(lambda: ready(port), "the controller does not get ready")
        with client.ApiClient(settings) as api:
            yield Kueue(plane=plane, objects=client.CustomObjectsApi(api), port=port)


def test_its_checks_become_active(kueue: Kueue) -> None:
    checks = ["admissioncheck/memplan", "admissioncheck/second"]
    kueue.plane.kubectl("wait", "--for", "condition=Active", *checks, "--timeout", "30s")
    assert "status" not in kueue.plane.get("admissioncheck", "others")


def test_a_job_that_fits_is_ready_and_other_checks_stay(kueue: Kueue) -> None:
    kueue.reserve(workload("fits", SMALL))
    checks = kueue.answered("fits")
    assert checks["memplan"]["state"] == "Ready"
    [update] = checks["memplan"]["podSetUpdates"]
    assert update["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}
    assert checks["others"]["state"] == "Pending"


def test_only_its_check_is_owned(kueue: Kueue) -> None:
    kueue.reserve(workload("owned", SMALL))
    kueue.answered("owned")
    managed = kueue.plane.get("workload", "owned")["metadata"]["managedFields"]
    [own] = [one for one in managed if one["manager"] == "memplan-planner"]
    assert own["operation"] == "Apply"
    assert set(own["fieldsV1"]) == {"f:status"}
    status = own["fieldsV1"]["f:status"]
    assert set(status) == {"f:admissionChecks"}
    assert set(status["f:admissionChecks"]) == {'k:{"name":"memplan"}'}


def test_a_job_that_fits_nowhere_is_rejected_and_its_events_say_so(kueue: Kueue) -> None:
    kueue.reserve(workload("huge", HUGE))
    state = kueue.answered("huge")["memplan"]
    assert state["state"] == "Rejected"
    assert "It does not fit on any GPU asked about" in state["message"]

    def events() -> list[Object]:
        found = kueue.plane.listed("events")
        own = [one for one in found if one.get("reportingComponent") == "memplan.dev/planner"]
        return [one for one in own if one["involvedObject"]["name"] == "huge"]

    wait_for(lambda: len(events()) == 2, "there are no events")
    assert {one["involvedObject"]["kind"] for one in events()} == {"Job", "Workload"}
    assert {(one["type"], one["reason"]) for one in events()} == {("Warning", "DoesNotFit")}
    assert all("does not fit" in one["message"] for one in events())


def test_two_of_its_checks_at_one_workload(kueue: Kueue) -> None:
    item = workload("both", SMALL)
    pending = dict(item["status"]["admissionChecks"][0], name="second")
    item["status"]["admissionChecks"].append(pending)
    kueue.reserve(item)
    checks = kueue.answered("both", "memplan", "second")
    assert {checks[name]["state"] for name in ("memplan", "second")} == {"Ready"}
    assert checks["memplan"]["podSetUpdates"] == checks["second"]["podSetUpdates"]


def test_what_is_answered_stays_when_another_check_is_asked_for(kueue: Kueue) -> None:
    item = workload("later", SMALL)
    kueue.reserve(item)
    before = kueue.answered("later")["memplan"]
    pending = dict(item["status"]["admissionChecks"][0], name="second")
    current = kueue.checks("later")
    item["status"]["admissionChecks"] = [*current.values(), pending]
    kueue.reserve(item)
    after = kueue.answered("later", "memplan", "second")
    assert after["memplan"] == before
    assert after["second"]["state"] == "Ready"


def test_a_check_that_is_asked_for_anew_is_answered_anew(kueue: Kueue) -> None:
    item = workload("evicted", SMALL)
    kueue.reserve(item)
    kueue.answered("evicted")
    kueue.reserve(item)  # pending again
    assert kueue.answered("evicted")["memplan"]["state"] == "Ready"


def test_a_workload_that_is_deleted_is_no_error(kueue: Kueue) -> None:
    kueue.reserve(workload("gone", SMALL))
    kueue.plane.kubectl("delete", "workload", "gone", "--namespace", "ml")
    kueue.reserve(workload("gone", SMALL))
    assert kueue.answered("gone")["memplan"]["state"] == "Ready"


def test_what_has_changed_meanwhile_is_not_overwritten(kueue: Kueue) -> None:
    cluster = connect(kueue.plane.kubeconfig("administrator"))
    item = workload("changed", SMALL, reserved=False)
    kueue.reserve(item)
    before = cluster.workload("ml", "changed")
    assert before is not None
    kueue.reserve(workload("changed", SMALL))
    after = kueue.answered("changed")
    state = dict(after["memplan"], state="Retry")
    with pytest.raises(ApiException) as refused:
        cluster.apply_checks(before, [state])
    assert refused.value.status == 409
    kueue.plane.kubectl("delete", "workload", "changed", "--namespace", "ml")
    kueue.plane.kubectl("apply", "--filename", "-", given=item)  # another of that name
    with pytest.raises(ApiException) as refused:
        cluster.apply_checks(before, [state])
    assert refused.value.status in (409, 422)
    assert "status" not in kueue.plane.get("workload", "changed")


def test_an_api_server_that_was_away_is_watched_again(kueue: Kueue) -> None:
    kueue.plane.restart()
    kueue.reserve(workload("restarted", SMALL))
    assert kueue.answered("restarted")["memplan"]["state"] == "Ready"
    assert ready(kueue.port)
