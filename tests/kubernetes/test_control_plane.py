"""The webhook as a real API server asks it, and what people read of that in kubectl.

`make kubernetes` builds the API server. It is older than what docs/kubernetes.md asks for: without
matchConditions, so that objects that are not annotated are reviewed here too.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from control_plane import ControlPlane, wait_for
from record_reviews import manifest
from reviewing import ROOT, Pair, Webhook, load, serving, until_planned

from memplan_server.app import RunningServer

pytestmark = pytest.mark.integration
FILE = ROOT / "deploy/kubernetes/webhook/mutatingwebhookconfiguration.yaml"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
Object = dict[str, Any]
PLAIN = manifest("pod-not-annotated")


def configuration(webhook: Webhook) -> Object:
    """The repository's own, for a webhook on a port."""
    item: Object = yaml.safe_load(FILE.read_text())
    for one in item["webhooks"]:
        del one["matchConditions"]
        one["clientConfig"]["service"]["port"] = webhook.port
    return item


def configure(plane: ControlPlane, webhook: Webhook) -> None:
    """Have the API server ask that webhook, with the page's own command for its certificate."""
    plane.kubectl("apply", "--filename", "-", given=configuration(webhook))
    command = re.search(r"^for webhook in .*?^done\n", PAGE, flags=re.M | re.S)
    assert command is not None
    plane.bash(command[0], folder=str(webhook.pair.cert.parent))


@contextmanager
def configured(plane: ControlPlane, webhook: Webhook) -> Iterator[None]:
    """The API server asks that webhook, by the name of its Service."""
    spec = {"type": "ExternalName", "externalName": "localhost"}
    metadata = {"name": "memplan-webhook", "namespace": "memplan"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    plane.kubectl("apply", "--filename", "-", given=service)
    configure(plane, webhook)
    wait_for(lambda: is_planned(tried(plane, manifest("pod"))), "the webhook is not asked")
    yield
    plane.kubectl("delete", "--filename", "-", given=configuration(webhook))
    wait_for(lambda: not is_planned(tried(plane, manifest("pod"))), "the webhook is still asked")


def is_planned(item: Object) -> bool:
    return "memplan.dev/planned" in item["metadata"].get("annotations", {})


def tried(plane: ControlPlane, item: Object, namespace: str = "ml") -> Object:
    """What would be stored."""
    words = ["--dry-run=server", "--output", "json", "--namespace", namespace]
    done = plane.kubectl("create", "--filename", "-", *words, given=item)
    found: Object = json.loads(done.stdout)
    return found


def created(
    plane: ControlPlane, item: Object, *words: str, namespace: str = "ml"
) -> tuple[Object, str]:
    """The object as it is stored, and what kubectl said on standard error; deleted again."""
    apply = ["apply", "--filename", "-", "--namespace", namespace]
    done = plane.kubectl(*apply, *words, given=item)
    name = item["metadata"]["name"]
    stored = plane.get(item["kind"], name, namespace)
    plane.kubectl("delete", item["kind"], name, "--namespace", namespace, "--wait=false")
    return stored, done.stderr


@pytest.fixture(scope="module")
def asked(plane: ControlPlane, webhook: Webhook) -> Iterator[ControlPlane]:
    """The API server, which asks a webhook that plans. Jobs in `strict` are rejected."""
    plane.kubectl("create", "namespace", "strict")
    plane.kubectl("label", "namespace", "strict", "memplan.dev/policy=reject")
    for name in ("job", "job-too-large"):  # so that the first plans are there
        until_planned(webhook, load(name))
    with configured(plane, webhook):
        yield plane


def test_a_job_and_its_pods_are_planned_once(asked: ControlPlane) -> None:
    given = manifest("job")
    given["metadata"]["name"] = "with-pods"
    asked.kubectl("apply", "--filename", "-", "--namespace", "ml", given=given)
    wait_for(lambda: bool(asked.listed("pods", "--selector", "job-name=with-pods")), "no Pod")
    [pod] = asked.listed("pods", "--selector", "job-name=with-pods")
    job, said = created(asked, given)
    assert said == ""
    template = job["spec"]["template"]
    assert job["metadata"]["annotations"]["memplan.dev/verdict"] == "FITS"
    assert template["metadata"]["annotations"] == pod["metadata"]["annotations"]
    for spec in (template["spec"], pod["spec"]):
        [container] = spec["containers"]
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        assert [one["name"] for one in container["env"]] == [
            "MEMPLAN_MICRO_BATCH_SIZE",
            "MEMPLAN_ACCUMULATION_STEPS",
        ]
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert len(terms["nodeSelectorTerms"]) == 1
        assert sum(one["key"] == "nvidia.com/gpu" for one in spec["tolerations"]) == 1


def test_a_pod_is_planned(asked: ControlPlane) -> None:
    pod, said = created(asked, manifest("pod"))
    assert said == ""
    [container] = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert pod["metadata"]["annotations"]["memplan.dev/gpu-type"] == "nvidia-t4"
    assert "nodeAffinity" in pod["spec"]["affinity"]


def test_a_train_job_is_planned(asked: ControlPlane) -> None:
    job, said = created(asked, manifest("train-job"))
    assert said == ""
    trainer = job["spec"]["trainer"]
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": 1}
    assert {one["name"] for one in trainer["env"]} > {"EPOCHS"}
    assert [one["manager"] for one in job["spec"]["runtimePatches"]][1:] == ["memplan.dev/webhook"]


def test_what_is_not_annotated_is_left_alone(asked: ControlPlane) -> None:
    pod, said = created(asked, manifest("pod-not-annotated"))
    assert said == ""
    assert "affinity" not in pod["spec"]
    assert "memplan" not in json.dumps(pod)


def test_who_creates_what_does_not_fit_reads_warnings(asked: ControlPlane) -> None:
    job, said = created(asked, manifest("job-too-large"))
    assert said.startswith("Warning: It does not fit on any GPU asked about. nvidia-")
    assert all(line.startswith("Warning: ") for line in said.splitlines())
    assert job["metadata"]["annotations"]["memplan.dev/verdict"] == "DOES_NOT_FIT"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "job-too-large",
            "Error from server (Forbidden): {}It does not fit on any GPU asked about.",
        ),
        ("job-malformed", "Error from server (BadRequest): {}memplan: memplan.dev/job has 2"),
    ],
)
def test_or_why_it_is_rejected(asked: ControlPlane, name: str, sentence: str) -> None:
    given = manifest(name)
    words = ["apply", "--filename", "-", "--namespace", "strict"]
    done = asked.kubectl(*words, given=given, check=False)
    assert done.returncode == 1
    denied = 'admission webhook "reject.plan.memplan.dev" denied the request: '
    expected = sentence.format(f'error when creating "STDIN": {denied}')
    assert done.stderr.startswith(expected), done.stderr
    assert asked.listed("jobs", namespace="strict") == []


def test_the_page_shows_what_kubectl_prints(asked: ControlPlane) -> None:
    shown = re.search(r"^```text\n(Error from server .*?)^```$", PAGE, flags=re.M | re.S)
    assert shown is not None
    words = ["apply", "--filename", "-", "--namespace", "strict"]
    done = asked.kubectl(*words, given=manifest("job-too-large"), check=False)
    assert done.stderr.split() == shown[1].split()


def test_what_fits_is_created_where_others_are_rejected(asked: ControlPlane) -> None:
    job, _ = created(asked, manifest("job"), namespace="strict")
    assert is_planned(job)


def test_a_dry_run_shows_the_plan_and_stores_nothing(asked: ControlPlane) -> None:
    given = manifest("job")
    given["metadata"]["name"] = "dry"
    assert is_planned(tried(asked, given))
    assert asked.kubectl("get", "job", "dry", "--namespace", "ml", check=False).returncode == 1


@pytest.mark.parametrize("way", [[], ["--server-side"]])
def test_applied_again_it_stays_as_it_was_planned(asked: ControlPlane, way: list[str]) -> None:
    given = manifest("job")
    given["metadata"]["name"] = f"again{len(way)}"
    words = ["apply", "--filename", "-", "--namespace", "ml", *way]
    asked.kubectl(*words, given=given)
    before = asked.get("job", given["metadata"]["name"])
    asked.kubectl(*words, given=given)
    after, said = created(asked, given, *way)
    assert said == ""
    assert is_planned(after)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]


def test_without_the_webhook_objects_are_created_as_they_are(
    asked: ControlPlane, webhook: Webhook, pair: Pair, server: RunningServer
) -> None:
    with serving(pair, f"127.0.0.1:{server.port}") as second:
        configure(asked, second)
        wait_for(lambda: bool(tried(asked, PLAIN)) and reviews(second) > 0, "it is not asked")
    start = time.monotonic()
    pod, said = created(asked, manifest("pod"), namespace="strict")
    seconds = time.monotonic() - start
    configure(asked, webhook)
    wait_for(lambda: is_planned(tried(asked, manifest("pod"))), "the webhook is not asked")
    assert (is_planned(pod), said) == (False, "")
    assert "affinity" not in pod["spec"]
    assert seconds < 10


def reviews(webhook: Webhook) -> int:
    """How many a webhook has answered."""
    url = f"http://127.0.0.1:{webhook.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return int(re.findall(r"^memplan_webhook_review_duration_seconds_count (\d+)", text, re.M)[0])
