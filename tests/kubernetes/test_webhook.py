"""AdmissionReviews, sent to the real webhook over TLS, with a real planner behind it."""

from __future__ import annotations

import copy
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from reviewing import REVIEWS, Pair, Webhook, load, patched, serving, timed, until_planned

from memplan.cli.commands import cli
from memplan_server.app import RunningServer

NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
NAMES = sorted(path.stem for path in REVIEWS.glob("*.json"))
P99_S = 0.1
AWAY_S = 1.0
Object = dict[str, Any]


def planned(webhook: Webhook, name: str, path: str = "/mutate") -> tuple[Object, list[str]]:
    """The object after its review, and the warnings."""
    review = load(name)
    response = webhook.ask(review, path)
    assert response["allowed"], response
    return patched(review, response), response.get("warnings", [])


def terms_of(spec: Object) -> list[Object]:
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    found: list[Object] = required["nodeSelectorTerms"]
    return found


def variables(container: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_is_valid_and_the_same_the_second_time(webhook: Webhook, name: str) -> None:
    review = load(name)
    response = webhook.ask(review)
    assert response["uid"] == review["request"]["uid"]
    item = patched(review, response)
    assert_valid(item)
    again = copy.deepcopy(review)
    again["request"]["object"] = item
    assert patched(again, webhook.ask(again)) == item
    # Also where nothing tells that it was planned already.
    item["metadata"]["annotations"].pop("memplan.dev/planned", None)
    once_more = patched(again, webhook.ask(again))
    once_more["metadata"]["annotations"].pop("memplan.dev/planned", None)
    assert once_more == item


def assert_valid(item: Object) -> None:
    """By the schemas of Kubernetes; an unknown kind raises SchemaNotFoundError."""
    if item["kind"] == "TrainJob":  # of Kubeflow: its parts of Kubernetes are checked
        assert set(item["spec"]) <= {
            "managedBy",
            "suspend",
            "runtimeRef",
            "trainer",
            "runtimePatches",
        }
        trainer = item["spec"]["trainer"]
        container = {"name": "node", "env": trainer["env"]}
        container["resources"] = trainer["resourcesPerNode"]
        spec = {"containers": [container]}
        item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, "spec": spec}
    item = copy.deepcopy(item)
    for metadata in (item["metadata"], item["spec"].get("template", {}).get("metadata", {})):
        metadata.pop("creationTimestamp", None)  # null until it is stored
    for version in ("1.34", NEWEST):
        kubernetes_validate.validate(item, version, strict=True)


def test_a_pod_gets_gpu_node_and_variables(webhook: Webhook) -> None:
    pod, warnings = planned(webhook, "pod")
    assert warnings == []
    [container] = pod["spec"]["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert variables(container) == {
        "MEMPLAN_MICRO_BATCH_SIZE": "256",
        "MEMPLAN_ACCUMULATION_STEPS": "1",
    }
    annotations = pod["metadata"]["annotations"]
    assert annotations["memplan.dev/verdict"] == "FITS"
    assert annotations["memplan.dev/gpu-type"] == "nvidia-t4"
    assert re.fullmatch("[0-9a-f]{16,64}", annotations["memplan.dev/job-digest"])
    expected, bound = (
        int(annotations[f"memplan.dev/{name}"].removesuffix("Mi"))
        for name in ("expected-memory", "upper-bound")
    )
    assert 0 < expected < bound < 15 * 1024
    [term] = terms_of(pod["spec"])
    assert term["matchExpressions"][0]["values"] == ["Tesla-T4", "NVIDIA-T4"]
    # `Gt` is strict: the node that has just enough is admitted.
    memory = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [str(bound - 1)]}
    assert term["matchExpressions"][1] == memory
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["spec"][
        "tolerations"
    ]


def test_what_the_user_wrote_stays(webhook: Webhook) -> None:
    before = load("pod-with-requests")["request"]["object"]
    pod, warnings = planned(webhook, "pod-with-requests")
    assert warnings == ["MEMPLAN_MICRO_BATCH_SIZE is set already and stays; planned is 256."]
    sidecar, trainer = pod["spec"]["containers"]
    assert sidecar == before["spec"]["containers"][0]  # the GPUs tell which one trains
    assert trainer["resources"] == before["spec"]["containers"][1]["resources"]
    assert variables(trainer)["MEMPLAN_ACCUMULATION_STEPS"] == "1"
    assert variables(trainer)["MEMPLAN_MICRO_BATCH_SIZE"] == "32"
    assert pod["spec"]["tolerations"] == before["spec"]["tolerations"]
    assert (
        pod["spec"]["affinity"]["podAntiAffinity"] == before["spec"]["affinity"]["podAntiAffinity"]
    )
    # Two alternatives of the user's, each with two of the plan's.
    zone, node = terms_of(before["spec"])
    found = terms_of(pod["spec"])
    assert [term["matchExpressions"][0] for term in found[:2]] == zone["matchExpressions"] * 2
    assert [term["matchFields"] for term in found[2:]] == [node["matchFields"]] * 2
    assert {len(term["matchExpressions"]) for term in found[2:]} == {2}


def test_a_node_selector_decides_on_the_gpu(webhook: Webhook) -> None:
    review = load("job")  # names a T4, and a global batch
    spec = review["request"]["object"]["spec"]["template"]["spec"]
    spec["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-SHARED"}
    job = patched(review, webhook.ask(review))
    assert job["metadata"]["annotations"]["memplan.dev/gpu-type"] == "nvidia-a100-40gb"
    after = job["spec"]["template"]["spec"]
    assert after["nodeSelector"] == spec["nodeSelector"]
    [term] = terms_of(after)  # which says of the product nothing that could be amiss
    assert [e["key"] for e in term["matchExpressions"]] == ["nvidia.com/gpu.memory"]
    spec["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-Z9"}
    response = webhook.ask(review, "/mutate/reject")  # what is not known may hold anything
    assert response["allowed"]
    assert "NVIDIA-Z9 is no GPU that memplan knows." in response["warnings"][0]


def test_a_slice_is_asked_for_by_its_own_resource(webhook: Webhook) -> None:
    pod, _ = planned(webhook, "pod-mig")
    [container] = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/mig-1g.5gb": 1}
    [term] = terms_of(pod["spec"])
    assert term["matchExpressions"][1]["key"] == "nvidia.com/mig-1g.5gb.memory"


def test_a_jobs_pods_say_what_the_job_says(webhook: Webhook) -> None:
    job, _ = planned(webhook, "job")
    template = job["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        name: text
        for name, text in job["metadata"]["annotations"].items()
        if name.startswith("memplan.dev/")  # and not what kubectl writes there
    }
    [container] = template["spec"]["containers"]
    micro, steps = (int(value) for value in variables(container).values())
    assert micro * steps == 1024
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    # Its Pods are not planned again.
    review = load("pod")
    pod = review["request"]["object"]
    pod["metadata"]["annotations"], pod["spec"] = (
        template["metadata"]["annotations"],
        template["spec"],
    )
    assert set(webhook.ask(review)) == {"uid", "allowed"}


def test_a_claim_comes_with_the_template_that_it_needs(webhook: Webhook) -> None:
    job, [warning] = planned(webhook, "job-dra")
    spec = job["spec"]["template"]["spec"]
    [claim] = spec["resourceClaims"]
    assert spec["containers"][0]["resources"] == {"claims": [{"name": "gpu"}]}
    template = yaml.safe_load(job["metadata"]["annotations"]["memplan.dev/resource-claim-template"])
    kubernetes_validate.validate(template, NEWEST, strict=True)
    assert template["metadata"]["name"] == claim["resourceClaimTemplateName"]
    assert claim["resourceClaimTemplateName"] in warning


def test_a_train_job_hands_its_annotation_to_its_pods(webhook: Webhook) -> None:
    before = load("train-job")["request"]["object"]
    job, _ = planned(webhook, "train-job")
    trainer = job["spec"]["trainer"]
    assert trainer["resourcesPerNode"] == {"limits": {"nvidia.com/gpu": 1}}
    assert variables(trainer)["EPOCHS"] == "90"
    assert variables(trainer)["MEMPLAN_MICRO_BATCH_SIZE"] == "256"
    theirs, ours = job["spec"]["runtimePatches"]
    assert [theirs] == before["spec"]["runtimePatches"]
    [node] = ours["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    annotations = node["template"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["memplan.dev/job"] == before["metadata"]["annotations"]["memplan.dev/job"]
    assert "memplan.dev/planned" not in annotations


def test_a_dry_run_is_answered_alike(webhook: Webhook) -> None:
    review = load("job-dry-run")
    dry = patched(review, webhook.ask(review))
    review["request"]["dryRun"] = False
    assert patched(review, webhook.ask(review)) == dry


@pytest.mark.parametrize("name", ["pod-not-annotated", "job-update"])
def test_what_is_not_to_be_planned_is_left_alone(webhook: Webhook, name: str) -> None:
    review = load(name)
    assert webhook.ask(review) == {"uid": review["request"]["uid"], "allowed": True}


def test_a_job_that_fits_nowhere_is_admitted_with_warnings(webhook: Webhook) -> None:
    job, [reason, *remedies] = planned(webhook, "job-too-large")
    assert re.match(r"It does not fit on any GPU asked about\. nvidia-a100-40gb: .* GiB", reason)
    assert job["metadata"]["annotations"]["memplan.dev/verdict"] == "DOES_NOT_FIT"
    assert (
        "resources" not in job["spec"]["template"]["spec"]["containers"][0]
        or not (job["spec"]["template"]["spec"]["containers"][0]["resources"])
    )
    assert all(len(line) <= 250 for line in [reason, *remedies])


def test_or_rejected_where_its_namespace_says_so(webhook: Webhook) -> None:
    response = webhook.ask(load("job-too-large"), "/mutate/reject")
    assert not response["allowed"]
    assert response["status"]["code"] == 403
    assert "does not fit on any GPU asked about" in response["status"]["message"]
    assert "patch" not in response


def test_the_object_decides_before_its_namespace(webhook: Webhook) -> None:
    review = load("job-too-large")
    review["request"]["object"]["metadata"]["annotations"]["memplan.dev/policy"] = "reject"
    assert not webhook.ask(review, "/mutate/warn")["allowed"]
    review["request"]["object"]["metadata"]["annotations"]["memplan.dev/policy"] = "warn"
    assert webhook.ask(review, "/mutate/reject")["allowed"]


def test_a_job_described_wrongly_is_told_everything_that_is_wrong(webhook: Webhook) -> None:
    _, warnings = planned(webhook, "job-malformed")
    text = " ".join(warnings)
    assert "batchsize: unknown field" in text
    assert "adan" in text
    response = webhook.ask(load("job-malformed"), "/mutate/reject")
    assert (response["status"]["code"], response["status"]["reason"]) == (400, "BadRequest")
    assert "batchsize: unknown field" in response["status"]["message"]


def test_every_place_that_the_service_refuses_is_named(webhook: Webhook) -> None:
    review = load("job")
    annotations = review["request"]["object"]["metadata"]["annotations"]
    annotations["memplan.dev/job"] = "model: resnet50\nbatch_size: -1"
    first, *warnings = webhook.ask(review)["warnings"]
    assert first == "memplan: memplan.dev/job is wrong:"
    assert [line.partition(": ")[0] for line in warnings[:2]] == [
        "model.catalog.name",
        "micro_batch_size",
    ]
    assert "details" not in " ".join(warnings)


def test_so_many_mistakes_are_named_as_the_api_server_passes_on(webhook: Webhook) -> None:
    review = load("job")
    annotations = review["request"]["object"]["metadata"]["annotations"]
    annotations["memplan.dev/job"] += "".join(f"unknown{n}: 1\n" for n in range(100))
    warnings = webhook.ask(review)["warnings"]
    assert 3500 < sum(map(len, warnings)) <= 4096
    assert warnings[0] == "memplan: memplan.dev/job has 100 mistakes:"
    assert warnings[-1] == "The object is admitted as it is."


def test_a_job_reads_no_file_of_the_webhooks(webhook: Webhook) -> None:
    _, warnings = planned(webhook, "job-reads-a-file")
    assert "no file can be read here" in " ".join(warnings)
    assert "root:" not in " ".join(warnings)


@pytest.mark.parametrize(
    ("annotations", "sentence"),
    [
        (
            {"placement": "nearby"},
            "memplan.dev/placement is 'nearby', not one of affinity, mig, dra.",
        ),
        ({"placement": "mig"}, "mig needs MIG profiles"),
        ({"job": "# " + "x" * 65536}, "memplan.dev/job is longer than 64 KiB."),
        ({"policy": "maybe"}, "memplan.dev/policy is 'maybe', not one of warn, reject."),
        ({"container": "x"}, "it has no container 'x', only trainer."),
    ],
)
def test_wrong_annotations_are_named(
    webhook: Webhook, annotations: dict[str, str], sentence: str
) -> None:
    review = load("pod")
    for name, value in annotations.items():
        review["request"]["object"]["metadata"]["annotations"][f"memplan.dev/{name}"] = value
    response = webhook.ask(review)
    assert "patch" not in response
    assert sentence in " ".join(response["warnings"])


def test_who_asks_for_another_gpu_is_told(webhook: Webhook) -> None:
    review = load("pod")
    [container] = review["request"]["object"]["spec"]["containers"]
    container["resources"] = {"limits": {"nvidia.com/mig-3g.20gb": "1"}}
    response = webhook.ask(review)
    pod = patched(review, response)
    assert pod["spec"]["containers"][0]["resources"] == container["resources"]
    assert "affinity" not in pod["spec"]
    assert "nvidia.com/gpu is not added" in " ".join(response["warnings"])


GOOD = json.dumps(load("pod")).encode()


@pytest.mark.parametrize(
    ("body", "content_type", "path", "status"),
    [
        (GOOD, "application/yaml", "/mutate", 415),
        (GOOD, "application/json", "/other", 404),
        (b"", "application/json", "/mutate", 400),
        (b"{", "application/json", "/mutate", 400),
        (b"[" * 100_000, "application/json", "/mutate", 400),
        (b"\xff", "application/json", "/mutate", 400),
        (b"[]", "application/json", "/mutate", 400),
        (b'{"kind": "AdmissionReview"}', "application/json", "/mutate", 400),
        (GOOD.replace(b"k8s.io/v1", b"k8s.io/v1beta1"), "application/json", "/mutate", 400),
        (GOOD.replace(b'"uid"', b'"uidd"'), "application/json", "/mutate", 400),
        (b" " * (9 << 20), "application/json", "/mutate", 413),
    ],
)
def test_what_is_no_review_is_refused(
    webhook: Webhook, body: bytes, content_type: str, path: str, status: int
) -> None:
    found, text = webhook.post(body, path, content_type)
    assert found == status, text


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"metadata": "x"},
        {"metadata": {"annotations": []}},
        {"metadata": {"annotations": {"memplan.dev/job": 7}}},
        {
            "metadata": {"annotations": {"memplan.dev/job": "model: torchvision/resnet50"}},
            "spec": 1,
        },
        {"metadata": load("pod")["request"]["object"]["metadata"], "spec": {"containers": [1]}},
        {"metadata": load("pod")["request"]["object"]["metadata"], "spec": {}},
    ],
)
def test_objects_of_no_known_form_are_admitted(webhook: Webhook, item: Object) -> None:
    review = load("pod")
    review["request"]["object"] = item
    response = webhook.ask(review)
    assert response["allowed"]
    assert "patch" not in response


@pytest.mark.parametrize("strange", [None, 7, "Pod", [], {"kind": {}}])
@pytest.mark.parametrize("field", ["kind", "object", "operation", "namespace", "name"])
def test_requests_of_no_known_form_are_admitted(
    webhook: Webhook, field: str, strange: object
) -> None:
    review = load("pod")
    review["request"][field] = strange
    assert webhook.ask(review)["allowed"]


def test_p99_is_below_100_ms(webhook: Webhook) -> None:
    review = load("job")
    webhook.ask(review)
    connection = webhook.connect()
    seconds = []
    for _ in range(300):
        start = time.monotonic()
        assert "patch" in webhook.ask(review, connection=connection)
        seconds.append(time.monotonic() - start)
    connection.close()
    p99 = statistics.quantiles(seconds, n=100)[98]
    print(f"median {1000 * statistics.median(seconds):.1f} ms, p99 {1000 * p99:.1f} ms")
    assert p99 < P99_S


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken and nothing is ever said: a frozen planner."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens: a planner that is away."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("planner", ["silent", pytest.param("nobody", marks=pytest.mark.slow)])
def test_without_a_planner_objects_pass_within_a_second(
    pair: Pair, planner: str, request: pytest.FixtureRequest
) -> None:
    with serving(pair, request.getfixturevalue(planner), "--policy", "reject") as webhook:
        for name in ("job", "pod", "job-too-large"):
            response, seconds = timed(webhook, load(name))
            assert response["allowed"]
            assert "patch" not in response
            assert response["warnings"] == [
                "memplan has no plan in time; the object is admitted as it is."
            ]
            assert seconds < AWAY_S
        # What needs no planner is refused as ever.
        assert not webhook.ask(load("job-malformed"))["allowed"]


@pytest.mark.slow
def test_a_renewed_certificate_is_served_without_a_restart(
    own_pair: Pair, server: RunningServer
) -> None:
    with serving(own_pair, f"127.0.0.1:{server.port}") as webhook:
        before = webhook.connect()
        own_pair.cert.write_text("half of")  # as for a moment while it is written
        time.sleep(1.2)
        own_pair.make()
        deadline = time.monotonic() + 10
        while True:
            try:
                webhook.connect().close()  # trusts the new one only
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert webhook.ask(load("pod-not-annotated"), connection=before)["allowed"]
        before.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cert", "/nowhere/tls.crt"], "No such file or directory"),
        (["--listen", "8443"], "--listen is '8443', not HOST:PORT"),
        (["--policy", "maybe"], "'maybe' is not one of 'warn', 'reject'"),
        (["--gpu", "nvidia-t4:much"], "much"),
    ],
)
def test_wrong_settings_are_named(options: list[str], sentence: str) -> None:
    done = CliRunner().invoke(cli, ["webhook", *options])
    assert done.exit_code == 2
    assert sentence in done.output


def test_probes_and_metrics(webhook: Webhook) -> None:
    for path in ("/healthz", "/readyz"):
        connection = webhook.connect()
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()
    url = f"http://127.0.0.1:{webhook.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    assert re.search(r'^memplan_webhook_reviews_total\{outcome="planned"\} [1-9]', text, re.M)
    assert re.search(r"^memplan_webhook_review_duration_seconds_count [1-9]", text, re.M)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A planner as a process of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = ["--listen", target, "--data-dir", str(tmp_path / "data"), "--workers", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "memplan_server", *arguments], stderr=subprocess.DEVNULL
    ) as planner:
        try:
            with grpc.insecure_channel(target) as channel:
                grpc.channel_ready_future(channel).result(60)
            yield planner, target
        finally:
            planner.send_signal(signal.SIGCONT)
            planner.terminate()


@pytest.mark.slow
def test_a_planner_that_freezes_or_ends_holds_nobody_up(
    pair: Pair, process: tuple[subprocess.Popen[bytes], str]
) -> None:
    planner, target = process
    with serving(pair, target, "--patience", "25") as webhook:
        until_planned(webhook, load("pod"))
        planner.send_signal(signal.SIGSTOP)
        assert "patch" in webhook.ask(load("pod"))  # it was planned before
        for name in ("job-dra", "job-too-large"):
            response, seconds = timed(webhook, load(name))
            assert (response["allowed"], "patch" in response) == (True, False)
            assert seconds < AWAY_S, name
        planner.send_signal(signal.SIGCONT)
        until_planned(webhook, load("job-dra"))
        planner.terminate()
        planner.wait(60)
        response, seconds = timed(webhook, load("pod-mig"))
        assert (response["allowed"], "patch" in response) == (True, False)
        assert seconds < AWAY_S
