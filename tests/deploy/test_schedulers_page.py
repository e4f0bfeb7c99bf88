"""docs/schedulers.md: manifests are valid, queries answered, requests what commands print."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import schedulers_example
import yaml
from observed import exposed, named, recorded
from real_prometheus import Prometheus

from memplan.types import Scheduler
from memplan_server.app import RunningServer

PAGE = schedulers_example.PAGE.read_text()
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
KEDA = "keda.sh/v1alpha1"


def blocks(language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.M | re.S)


def manifests(kind: str = "") -> list[Any]:
    """The manifests of a kind, or all."""
    documents = [d for block in blocks("yaml") for d in yaml.safe_load_all(block)]
    found = [d for d in documents if "apiVersion" in d]
    return [d for d in found if kind in ("", d["kind"])]


def adapter_rule() -> dict[str, Any]:
    """The one rule of prometheus-adapter."""
    (config,) = manifests("ConfigMap")
    (rule,) = yaml.safe_load(config["data"]["config.yaml"])["externalRules"]
    return rule  # type: ignore[no-any-return]


def trigger() -> dict[str, str]:
    """What KEDA asks Prometheus."""
    (scaled,) = manifests("ScaledObject")
    (found,) = scaled["spec"]["triggers"]
    assert found["type"] == "prometheus"
    return found["metadata"]  # type: ignore[no-any-return]


def queries() -> Iterator[str]:
    """Every query of the page; that of the adapter as it fills it in."""
    yield from (block.strip() for block in blocks("promql"))
    yield trigger()["query"]
    rule = adapter_rule()
    filled = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"])
    yield filled.replace("<<.LabelMatchers>>", "")


def test_manifests_follow_the_schemas_of_kubernetes() -> None:
    ours = [m for m in manifests() if m["apiVersion"] != KEDA]
    assert {m["kind"] for m in ours} == {"Pod", "ConfigMap", "HorizontalPodAutoscaler"}
    for manifest in ours:
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_the_scaled_object_has_the_fields_of_keda() -> None:
    (scaled,) = manifests("ScaledObject")
    spec = scaled["spec"]
    assert (scaled["apiVersion"], set(scaled)) == (KEDA, {"apiVersion", "kind", "metadata", "spec"})
    numbers = {"minReplicaCount", "maxReplicaCount", "cooldownPeriod"}
    assert set(spec) == {"scaleTargetRef", "triggers", *numbers}
    assert all(isinstance(spec[name], int) for name in numbers)
    assert set(trigger()) == {"serverAddress", "query", "threshold"}
    assert all(isinstance(value, str) for value in trigger().values())  # KEDA takes only strings


def test_both_scale_the_deployment_alike() -> None:
    (scaled,), (hpa,) = manifests("ScaledObject"), manifests("HorizontalPodAutoscaler")
    target = hpa["spec"]["metrics"][0]["external"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == hpa["spec"]["scaleTargetRef"]["name"]
    assert target["metric"]["name"] == adapter_rule()["seriesQuery"]
    assert target["target"]["averageValue"] == trigger()["threshold"]


def test_what_the_page_names_is_there() -> None:
    table = set(re.findall(r"^\| (`.*?) \|", PAGE, flags=re.M))
    names = {name for cell in table for name in re.findall(r"`([\w:]+)`", cell)}
    for query in (*queries(), *names):
        metrics = named(query)
        assert metrics
        assert metrics <= exposed() | recorded() | {"memplan_prediction_ratio"}


def test_every_dialect_is_shown() -> None:
    asked = [command.rpartition(" ")[2] for command in schedulers_example.shown()]
    assert asked == sorted(asked, key=list(Scheduler).index)
    assert set(asked) == set(Scheduler) - {Scheduler.UNSPECIFIED}


@pytest.mark.slow
def test_requests_are_what_the_commands_print(server: RunningServer) -> None:
    shown = schedulers_example.shown()
    current = schedulers_example.current(f"127.0.0.1:{server.port}")
    assert shown == current, "to update: python tests/schedulers_example.py"


@pytest.mark.integration
def test_queries_are_answered(prometheus: Prometheus) -> None:
    answers = {query: prometheus.query(query) for query in queries()}
    nothing = {query for query, samples in answers.items() if not samples}
    assert nothing == {q for q in answers if "unless" in q}  # the job fits
    fits = next(samples for query, samples in answers.items() if "sort_desc" in query)
    assert [labels["gpu_type"] for labels, _ in fits] == ["nvidia-h100-80gb"]


@pytest.mark.integration
def test_commands_print_free_bytes(prometheus: Prometheus, gpu_server: RunningServer) -> None:
    metrics = f"127.0.0.1:{gpu_server.metrics_port}"
    printed = []
    for block in blocks("bash"):
        assert shlex.split(block)[0] == "curl"
        command = block.replace("localhost:9464", metrics)
        command = command.replace("localhost:9090", prometheus.address)
        printed.append(subprocess.run(command, shell=True, capture_output=True, check=True).stdout)
    of_server, of_prometheus = printed
    assert of_server.count(b'gpu_type="nvidia-h100-80gb"') == 2
    assert b'"gpu_type":"nvidia-h100-80gb"' in of_prometheus
