"""The controller of the admission check, before a small API server and a planner that plans."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_cluster import FakeCluster, cluster
from kueue_objects import HUGE, SMALL, admission_check, controlling, flavor, workload

from memplan_server.app import RunningServer

pytestmark = pytest.mark.slow

Object = dict[str, Any]


def kubeconfig(found: FakeCluster, folder: Path) -> Path:
    """A file that leads to the cluster."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{found.port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def running(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FakeCluster, int]]:
    """A cluster whose GPUs are named by their labels, and the controller."""
    with cluster() as found:
        found.put("resourceflavors", flavor("any"))
        found.put("resourceflavors", flavor("t4", **{"gpu.product": "Tesla-T4-SHARED"}))
        found.put("resourceflavors", flavor("new", **{"gpu.product": "NVIDIA-Z9"}))
        found.put("admissionchecks", admission_check("memplan"))
        found.put("admissionchecks", admission_check("others", "example.org/other"))
        gpus = ["--gpu", "NVIDIA-A100-SXM4-40GB", "--gpu", "Tesla-T4"]
        target = f"127.0.0.1:{server.port}"
        path = kubeconfig(found, tmp_path_factory.mktemp("kueue"))
        with controlling(path, target, *gpus) as port:
            yield found, port


@pytest.fixture
def found(running: tuple[FakeCluster, int]) -> FakeCluster:
    return running[0]


def test_its_checks_become_active_and_no_others(found: FakeCluster) -> None:
    found.wait_for(lambda: "status" in found.get("admissionchecks", "memplan"))
    [condition] = found.get("admissionchecks", "memplan")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Active", "True")
    assert "status" not in found.get("admissionchecks", "others")


def test_a_job_that_fits_is_ready_and_goes_where_it_fits(found: FakeCluster) -> None:
    found.put("workloads", workload("fits", SMALL))
    state = found.answered("fits")
    assert state["state"] == "Ready"
    assert state["message"].startswith("main: nvidia-t4: Takes")
    [update] = state["podSetUpdates"]
    assert update["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}
    assert update["annotations"]["memplan.dev/verdict"] == "FITS"
    assert update["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert found.check("fits", "others")["state"] == "Pending"


def test_two_of_its_checks_are_answered_together(found: FakeCluster) -> None:
    found.put("admissionchecks", admission_check("second"))
    item = workload("both", SMALL)
    item["status"]["admissionChecks"].append(
        dict(item["status"]["admissionChecks"][0], name="second")
    )
    found.put("workloads", item)
    found.wait_for(lambda: found.check("both", "second")["state"] == "Ready")
    assert found.answered("both")["state"] == "Ready"


def test_whoever_submitted_it_sees_an_event_at_the_job(found: FakeCluster) -> None:
    found.put("workloads", workload("told", SMALL))
    found.answered("told")

    def told() -> list[Object]:
        return [e for e in found.events if e["regarding"]["name"] == "told"]

    found.wait_for(lambda: len(told()) == 2)
    assert {e["regarding"]["kind"] for e in told()} == {"Workload", "Job"}
    assert {(e["type"], e["reason"]) for e in told()} == {("Normal", "Planned")}
    assert all(e["note"].startswith("main: nvidia-t4: Takes") for e in told())


def test_nothing_is_planned_before_quota_is_reserved(found: FakeCluster) -> None:
    found.put("workloads", workload("queued", SMALL, reserved=False))
    found.put("workloads", workload("later", SMALL))
    found.answered("later")
    assert found.check("queued")["state"] == "Pending"
    found.put("workloads", workload("queued", SMALL))
    assert found.answered("queued")["state"] == "Ready"


def test_a_job_that_fits_nowhere_is_rejected_with_the_reason(found: FakeCluster) -> None:
    found.put("workloads", workload("huge", HUGE))
    state = found.answered("huge")
    assert state["state"] == "Rejected"
    assert "It does not fit on any GPU asked about. nvidia-a100-40gb: Takes" in state["message"]
    assert "podSetUpdates" not in state
    found.wait_for(lambda: any(e["regarding"]["name"] == "huge" for e in found.events))
    [event, *_] = [e for e in found.events if e["regarding"]["name"] == "huge"]
    assert (event["type"], event["reason"]) == ("Warning", "DoesNotFit")


def test_the_flavor_that_kueue_chose_decides(found: FakeCluster) -> None:
    job = f"{SMALL}gpus: [nvidia-a100-40gb]\n"
    found.put("workloads", workload("chosen", job, flavor_name="t4"))
    state = found.answered("chosen")
    assert state["message"].startswith("main: nvidia-t4: Takes")
    assert "nodeSelector" not in state["podSetUpdates"][0]  # Kueue adds the flavor's labels


def test_a_gpu_that_is_not_known_may_hold_anything(found: FakeCluster) -> None:
    found.put("workloads", workload("new", HUGE, flavor_name="new"))
    state = found.answered("new")
    assert (state["state"], "podSetUpdates" in state) == ("Ready", False)
    assert "NVIDIA-Z9 is no GPU that memplan knows" in state["message"]


def test_a_selector_of_the_jobs_own_decides(found: FakeCluster) -> None:
    own = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}
    found.put("workloads", workload("own", SMALL, node_selector=own))
    state = found.answered("own")
    assert state["message"].startswith("main: nvidia-a100-40gb: Takes")
    assert "nodeSelector" not in state["podSetUpdates"][0]


def test_what_the_webhook_has_planned_gets_no_key_twice(found: FakeCluster) -> None:
    planned = {"planned": "0123456789abcdef", "verdict": "FITS", "gpu_type": "nvidia-t4"}
    found.put("workloads", workload("twice", SMALL, **planned))
    [update] = found.answered("twice")["podSetUpdates"]
    assert not update["annotations"].keys() & {f"memplan.dev/{k}" for k in ("planned", "verdict")}


@pytest.mark.parametrize(
    ("name", "job", "state", "sentence"),
    [
        ("plain", None, "Ready", "nothing is to be planned"),
        (
            "typo",
            "model: torchvision/resnet50\nbatchsize: 1",
            "Rejected",
            "batchsize: unknown field",
        ),
        ("model", "model: torchvision/resnet51\nbatch_size: 1", "Rejected", "resnet50"),
    ],
)
def test_what_cannot_be_planned_says_why(
    found: FakeCluster, name: str, job: str | None, state: str, sentence: str
) -> None:
    found.put("workloads", workload(name, job))
    answer = found.answered(name)
    assert answer["state"] == state
    assert sentence in answer["message"]


@pytest.mark.parametrize(
    "error", [None, {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}]
)
def test_watches_that_end_begin_anew(found: FakeCluster, error: Object | None) -> None:
    name = "gone" if error else "dropped"
    found.drop(error)
    found.put("workloads", workload(name, SMALL))
    assert found.answered(name)["state"] == "Ready"


def test_its_probes_and_metrics_answer(running: tuple[FakeCluster, int]) -> None:
    running[0].put("workloads", workload("counted", SMALL))
    running[0].answered("counted")
    for path in ("healthz", "readyz", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{running[1]}/{path}", timeout=10) as answer:
            text = answer.read().decode()
    assert re.search(r'^memplan_kueue_checks_total\{state="ready"\} [1-9]', text, re.M)


def test_while_the_planner_is_away_quota_is_given_back(tmp_path: Path) -> None:
    with cluster() as found, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found.put("resourceflavors", flavor("any"))
        found.put("workloads", workload("waits", SMALL))  # before its check
        found.put("admissionchecks", admission_check("memplan"))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        with controlling(kubeconfig(found, tmp_path), target, "--patience", "0.5"):
            state = found.answered("waits")
            found.wait_for(lambda: bool(found.events))
    assert state["state"] == "Retry"
    assert state["message"].startswith("The planner does not answer")
    assert {e["reason"] for e in found.events} == {"PlannerAway"}
