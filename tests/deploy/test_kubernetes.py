"""The plain manifests: valid for current Kubernetes, restricted, and in step with the server.

`make chart` renders them from the Helm chart; what holds for them holds for the chart's defaults.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import kubernetes_validate
import manifests
import pytest
from manifests import Manifest

from memplan.v1 import planner_pb2
from memplan_server.settings import Settings

ROOT = Path(__file__).parents[2]
PLAIN = ROOT / "deploy" / "kubernetes"
FILES = sorted(PLAIN.rglob("*.yaml"))


def read(path: Path) -> list[Manifest]:
    return manifests.read(path.read_text())


MANIFESTS = {path.name: m for path in FILES if path.parent == PLAIN for m in read(path)}


def of_kind(kind: str) -> Manifest:
    (manifest,) = [m for m in MANIFESTS.values() if m["kind"] == kind]
    return manifest


POD = of_kind("Deployment")["spec"]["template"]["spec"]
(SERVER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
ENVIRONMENT = {e["name"]: e.get("value", "a-node") for e in SERVER["env"]}


def image_environment() -> dict[str, str]:
    """Settings that the image itself makes."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    return dict(re.findall(r"(MEMPLAN_\w+)=(\S+)", text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PLAIN)))
@pytest.mark.parametrize("version", [manifests.OLDEST, manifests.NEWEST])
def test_manifests_follow_the_schemas_of_kubernetes(path: Path, version: str) -> None:
    assert read(path)
    for manifest in read(path):
        manifests.validate(manifest, version)


def test_a_mistyped_field_or_kind_would_be_found() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        manifests.validate(of_kind("Service") | {"sepc": {}}, manifests.NEWEST)
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        manifests.validate(of_kind("Service") | {"kind": "Servise"}, manifests.NEWEST)


def test_the_pod_meets_the_restricted_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert SERVER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(set(volume) == {"name", "emptyDir"} for volume in POD["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(POD)
    assert POD["automountServiceAccountToken"] is False


def test_the_settings_are_settings_of_the_server() -> None:
    environment = image_environment() | ENVIRONMENT
    settings = Settings.parse([], environment)
    known = {f"MEMPLAN_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert set(environment) <= known
    assert settings.prestart_workers


def test_ports_are_those_that_the_image_serves_on() -> None:
    settings = Settings.parse([], image_environment() | ENVIRONMENT)
    assert settings.listen == f"0.0.0.0:{PORTS['grpc']}"
    assert settings.metrics_port == PORTS["metrics"]
    annotations = of_kind("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["metrics"])
    assert {p["targetPort"]: p["port"] for p in of_kind("Service")["spec"]["ports"]} == PORTS
    rules = of_kind("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == set(PORTS)


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_a_service_that_the_server_reports_on(probe: str) -> None:
    grpc = SERVER[probe]["grpc"]
    assert grpc["port"] == PORTS["grpc"]  # a number: the API takes no name here
    service = planner_pb2.DESCRIPTOR.services_by_name["MemoryPlanner"]
    assert grpc.get("service", "") in ("", service.full_name)


def test_memory_limits_leave_room_for_every_worker() -> None:
    settings = Settings.parse([], image_environment() | ENVIRONMENT)
    limit = int(SERVER["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    assert settings.workers * settings.worker_memory_limit + (1 << 30) <= limit
    (size,) = [v["emptyDir"]["sizeLimit"] for v in POD["volumes"] if v["name"] == "data"]
    assert settings.store_size < int(size.removesuffix("Gi")) << 30
    assert settings.workers <= int(SERVER["resources"]["limits"]["cpu"])


def test_calls_under_way_may_finish_before_the_pod_is_killed() -> None:
    settings = Settings.parse([], image_environment() | ENVIRONMENT)
    pause = SERVER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause + settings.drain_time < POD["terminationGracePeriodSeconds"]


def test_the_service_is_headless_and_selects_the_pods() -> None:
    deployment = of_kind("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["clusterIP"] == "None"
    assert of_kind("Service")["spec"]["selector"] == labels
    assert deployment["selector"]["matchLabels"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert POD["serviceAccountName"] == of_kind("ServiceAccount")["metadata"]["name"]


def test_a_drain_can_always_go_on() -> None:
    budget = of_kind("PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert 1 <= budget < of_kind("Deployment")["spec"]["replicas"]


def test_the_image_is_of_this_version_and_user() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SERVER["image"] == f"memplan:{project['version']}"
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    context = POD["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    mounts = {mount["name"]: mount["mountPath"] for mount in SERVER["volumeMounts"]}
    assert mounts["data"] == image_environment()["MEMPLAN_DATA_DIR"]
