"""The manifests of the webhook and the Kueue controller: valid, restricted, in step with both."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from memplan.cli.commands import cli
from memplan.kubernetes.annotations import JOB, POLICY, Policy
from memplan.kubernetes.objects import KINDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*/*.yaml"))
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
PARTS = ("webhook", "kueue")
Manifest = dict[str, Any]


def read(part: str, kind: str) -> Manifest:
    manifest: Manifest = yaml.safe_load((FOLDER / part / f"{kind}.yaml").read_text())
    return manifest


def pod(part: str) -> Manifest:
    found: Manifest = read(part, "deployment")["spec"]["template"]["spec"]
    return found


CONFIGURATION = read("webhook", "mutatingwebhookconfiguration")
WEBHOOKS = CONFIGURATION["webhooks"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.parametrize("version", ["1.34", NEWEST])
def test_they_follow_the_schemas_of_kubernetes(path: Path, version: str) -> None:
    manifest = yaml.safe_load(path.read_text())
    assert kubernetes_validate.validate(manifest, version, strict=True) == version
    assert path.stem == manifest["kind"].lower()


@pytest.mark.parametrize("part", PARTS)
def test_the_pods_meet_the_restricted_standard(part: str) -> None:
    spec = pod(part)
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is (part == "kueue")


@pytest.mark.parametrize("part", PARTS)
def test_the_command_takes_its_settings(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [container] = pod(part)["containers"]
    program, name = container["command"]
    assert program == "memplan"
    variables = {one["name"]: one["value"] for one in container["env"]}
    known = {option.envvar for option in cli.commands[name].params}
    assert set(variables) <= known
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with cli.make_context("memplan", [name]) as outside:
        inside = cli.commands[name].make_context(name, [], parent=outside)
    assert inside.params["gpus"] == ()
    assert inside.params["server"] == variables["MEMPLAN_SERVER"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert inside.params["metrics_port"] == ports["metrics"]
    if part == "webhook":
        assert inside.params["listen"].endswith(f":{ports['https']}")
        [mount] = container["volumeMounts"]
        files = {inside.params[name].parent for name in ("cert", "key")}
        assert files == {Path(mount["mountPath"])}


@pytest.mark.parametrize("part", PARTS)
def test_what_selects_the_pods_selects_them(part: str) -> None:
    deployment = read(part, "deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert read(part, "networkpolicy")["spec"]["podSelector"]["matchLabels"] == labels
    name = read(part, "serviceaccount")["metadata"]["name"]
    assert deployment["template"]["spec"]["serviceAccountName"] == name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [container] = deployment["template"]["spec"]["containers"]
    assert container["image"] == f"memplan:{project['version']}"


def test_the_service_leads_to_the_webhook() -> None:
    service = read("webhook", "service")
    labels = read("webhook", "deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    names = {port["name"] for port in pod("webhook")["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == names
    for webhook in WEBHOOKS:
        found = webhook["clientConfig"]["service"]
        assert (found["name"], found.get("port", 443)) == (service["metadata"]["name"], 443)
    budget = read("webhook", "poddisruptionbudget")["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert 1 <= budget["maxUnavailable"] < read("webhook", "deployment")["spec"]["replicas"]


def test_each_namespace_has_one_webhook_by_its_policy() -> None:
    found = {}
    for webhook in WEBHOOKS:
        own, policy = webhook["namespaceSelector"]["matchExpressions"]
        assert own == {
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": ["kube-system", "memplan"],
        }
        assert policy["key"] == POLICY
        found[webhook["clientConfig"]["service"]["path"]] = (policy["operator"], policy["values"])
    assert found == {"/mutate": ("NotIn", [p.value for p in Policy])} | {
        f"/mutate/{policy}": ("In", [policy.value]) for policy in Policy
    }


@pytest.mark.parametrize("webhook", WEBHOOKS, ids=lambda webhook: webhook["name"])
def test_the_api_server_asks_about_annotated_objects_only_and_can_do_without(
    webhook: Manifest,
) -> None:
    assert (webhook["failurePolicy"], webhook["sideEffects"]) == ("Ignore", "None")
    [condition] = webhook["matchConditions"]
    assert f"'{JOB}' in object.metadata.annotations" in condition["expression"]
    kinds = set()
    for rule in webhook["rules"]:
        assert rule["operations"] == ["CREATE"]
        [group], [version], [plural] = (rule[k] for k in ("apiGroups", "apiVersions", "resources"))
        kinds.add(f"{group}/{version}/{plural}")
    assert kinds == {f"{kind.lower()}s" for kind in KINDS}
    patience = next(o for o in cli.commands["webhook"].params if o.name == "patience")
    assert isinstance(patience, click.Option)
    assert patience.default + 1 < webhook["timeoutSeconds"]


def test_requests_under_way_may_finish() -> None:
    spec = pod("webhook")
    pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    text = (ROOT / "client/memplan/kubernetes/serving.py").read_text()
    drain = re.search(r"^DRAIN_S = ([\d.]+)$", text, flags=re.M)
    assert drain is not None
    assert pause + float(drain[1]) < spec["terminationGracePeriodSeconds"]


def test_the_controller_may_do_what_it_does_and_no_more() -> None:
    text = (ROOT / "client/memplan/kubernetes/kueue/cluster.py").read_text()
    used = set(re.findall(r"self\._\w+\.(\w+?)_(?:namespaced|cluster)_", text))
    assert used == {"list", "get", "patch", "create"}
    rules = read("kueue", "clusterrole")["rules"]
    granted = {
        (resource, verb)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    read_only = ("workloads", "admissionchecks", "resourceflavors")
    assert granted == {
        *((resource, verb) for resource in read_only for verb in ("get", "list", "watch")),
        ("workloads/status", "patch"),
        ("admissionchecks/status", "patch"),
        ("events", "create"),
    }
    binding = read("kueue", "clusterrolebinding")
    assert binding["roleRef"]["name"] == read("kueue", "clusterrole")["metadata"]["name"]
    [subject] = binding["subjects"]
    assert subject["name"] == read("kueue", "serviceaccount")["metadata"]["name"]
