"""What Helm makes of the chart."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import chart_files
import helm_program
import kubernetes_validate
import manifests
import pytest
import yaml
from manifests import Manifest

from memplan.cli.commands import cli
from memplan_server.settings import Settings

pytestmark = pytest.mark.integration

VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
EVERYTHING = next(path for path in VALUES if path.stem == "everything")
KINDS = {
    "default": {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"},
    "bare": {"Deployment", "Service"},
    "everything": {"HorizontalPodAutoscaler", "MutatingWebhookConfiguration", "AdmissionCheck"}
    | {"ServiceMonitor", "PrometheusRule", "ConfigMap", "Certificate", "Issuer"}
    | {"ClusterRole", "ClusterRoleBinding"},
    "cert-manager": {"Certificate", "MutatingWebhookConfiguration"},
    "self-signed": {"Job", "Role", "RoleBinding", "ClusterRole", "ConfigMap"},
    "existing-certificate": {"MutatingWebhookConfiguration"},
    "daemonset": {"DaemonSet"},
    "postgresql": {"Deployment"},
}


@cache
def rendered(name: str) -> list[Manifest]:
    """The manifests for one of the files of values."""
    return manifests.read(helm_program.template({}, EVERYTHING.with_stem(name)))


def the(name: str, kind: str, component: str = "") -> Manifest:
    """The one manifest of a kind, where there are several that of a component."""
    (found,) = (
        manifest
        for manifest in rendered(name)
        if manifest["kind"] == kind
        and component in ("", manifest["metadata"]["labels"]["app.kubernetes.io/component"])
    )
    return found


def environment(container: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def test_helm_finds_nothing_to_say() -> None:
    for path in VALUES:
        result = helm_program.helm("lint", "--strict", helm_program.CHART, f"--values={path}")
        assert result.returncode == 0, result.stdout
        assert re.findall(r"\[(?:WARNING|ERROR)\].*", result.stdout) == []


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_manifests_follow_the_schemas(path: Path) -> None:
    found = rendered(path.stem)
    for manifest in found:
        for version in (manifests.OLDEST, manifests.NEWEST):
            manifests.validate(manifest, version)
    assert {manifest["kind"] for manifest in found} >= KINDS[path.stem]


def test_unknown_kinds_and_fields_would_be_found() -> None:
    monitor = the("everything", "ServiceMonitor")
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        manifests.validate(monitor | {"kind": "ServiceMonitors"}, manifests.NEWEST)
    for kind in ("ServiceMonitor", "PrometheusRule", "Certificate", "Issuer", "AdmissionCheck"):
        manifest = the("everything", kind)
        wrong = manifest | {"spec": manifest["spec"] | {"mistyped": 1}}
        with pytest.raises(Exception, match="'mistyped' was unexpected"):
            manifests.validate(wrong, manifests.NEWEST)


def test_names_are_not_used_twice() -> None:
    for path in VALUES:
        keys = [(m["apiVersion"], m["kind"], m["metadata"]["name"]) for m in rendered(path.stem)]
        assert len(keys) == len(set(keys))


WRONG = {
    "estimator.settings.workers=many": r"'/estimator/settings/workers'.*got string, want integer",
    "estimator.settings.workerMemoryLimit=3Gi": r"'/estimator/settings/workerMemoryLimit'",
    "estimator.settings.listen=0.0.0.0:1": r"additional properties 'listen' not allowed",
    "estimator.setings.workers=1": r"additional properties 'setings' not allowed",
    "estimator.settings.logLevel=loud": r"must be one of 'debug', 'info', 'warning', 'error'",
    "profiler.kind=StatefulSet": r"must be one of 'Deployment', 'DaemonSet'",
    "profiler.gpuResource=nvidia.com/gpu.shared": r"'/profiler/gpuResource'",
    "webhook.certificates.mode=existing": r"'/webhook/certificates/existingSecret'",
    "tls.clientCertificates=true": r"'/tls/existingSecret': minLength",
    "image.digest=latest": r"'/image/digest'",
    "estimator.resources.limits.memory=lots": r"'/estimator/resources/limits/memory'",
}


@pytest.mark.parametrize("value", WRONG)
def test_wrong_values_are_refused_by_name(value: str) -> None:
    name, _, text = value.partition("=")
    with pytest.raises(RuntimeError, match=WRONG[value]):
        helm_program.template({name: text})


def test_notes_say_where_the_service_is() -> None:
    result = helm_program.helm(
        *("install", "memplan", helm_program.CHART, "--namespace", "ml", "--dry-run=client"),
        f"--values={EVERYTHING}",
    )
    notes = result.stdout.partition("NOTES:")[2]
    assert "dns:///memplan-planner.ml.svc.cluster.local:50051 --tls-ca ca.crt" in notes
    assert "AdmissionCheck memplan" in notes


def test_plain_manifests_are_what_the_chart_makes() -> None:
    written = {path: path.read_text() for path in chart_files.PLAIN.rglob("*.yaml")}
    assert written == chart_files.plain_manifests(), "run: make chart"


def test_the_settings_reach_the_server() -> None:
    pod = the("everything", "Deployment", "estimator")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    given = environment(server)
    for name in ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "PROFILER_CA"):
        assert given[f"MEMPLAN_{name}"].startswith("/etc/memplan/tls/")
    settings = Settings.parse([], given)
    assert settings.job_time_limit == 0.5
    assert settings.profiles_kept == 3_000_000
    assert settings.prestart_workers
    own = "dns:///memplan-planner-profiler.memplan.svc.cluster.local:50051"
    assert settings.profiler == ("gpu-0.example:50051", own)
    # Of those that other values make, the data directory is the image's.
    made = {f"MEMPLAN_{name.upper()}" for name in chart_files.OWNED} - {"MEMPLAN_DATA_DIR"}
    assert made <= {entry["name"] for entry in server["env"]}


def test_the_database_comes_from_the_secret_alone() -> None:
    (server,) = the("postgresql", "Deployment")["spec"]["template"]["spec"]["containers"]
    (url,) = [entry for entry in server["env"] if entry["name"] == "MEMPLAN_PROFILE_STORE_URL"]
    assert url["valueFrom"] == {"secretKeyRef": {"name": "profiles", "key": "url"}}
    egress = the("postgresql", "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for rule in egress for port in rule["ports"]} == {53, 5432}


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_pods_meet_the_restricted_standard(path: Path) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    found = list(manifests.pods(rendered(path.stem)))
    assert found
    for name, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert all("hostPath" not in volume for volume in pod["volumes"]) if "volumes" in pod else 1
        for container in manifests.containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}, name


def test_only_those_who_talk_to_the_api_have_a_token() -> None:
    tokens = {
        name: pod["automountServiceAccountToken"]
        for values in ("everything", "self-signed")
        for name, pod in manifests.pods(rendered(values))
    }
    assert {name for name, token in tokens.items() if token} == {
        "Deployment/memplan-planner-kueue",
        "Job/memplan-webhook-certificate-secret",
        "Job/memplan-webhook-certificate-trust",
    }


def test_rights_are_the_least() -> None:
    rules = [
        rule
        for values in ("everything", "self-signed")
        for manifest in rendered(values)
        if manifest["kind"] in ("Role", "ClusterRole")
        for rule in manifest["rules"]
    ]
    assert rules
    for rule in rules:
        assert not {"*", "delete", "deletecollection", "escalate", "bind"} & set(rule["verbs"])
        assert "*" not in rule["resources"] + rule["apiGroups"]
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["memplan-webhook"]


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_a_profiler_has_a_gpu_for_itself(kind: str) -> None:
    name, resource = {
        "Deployment": ("everything", "nvidia.com/mig-3g.20gb"),
        "DaemonSet": ("daemonset", "nvidia.com/gpu"),
    }[kind]
    pod = the(name, kind, "profiler")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["resources"]["limits"][resource] == 1
    assert server["image"].endswith("memplan:0.1.0-cuda")
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"][0]["key"] == "nvidia.com/gpu.present"
    assert pod.get("runtimeClassName") == {"Deployment": "nvidia"}.get(kind)
    settings = Settings.parse([], environment(server))
    needed = settings.workers * settings.worker_memory_limit + settings.profile_memory_limit
    limit = int(server["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    assert needed + (1 << 30) <= limit


def test_services_and_policies_select_pods() -> None:
    for path in VALUES:
        found = rendered(path.stem)
        labels = [
            manifest["spec"]["template"]["metadata"]["labels"]
            for manifest in found
            if "template" in manifest.get("spec", {})
        ]
        for selector in selectors(found):
            assert any(selector.items() <= pod.items() for pod in labels), selector


def selectors(found: list[Manifest]) -> list[dict[str, str]]:
    """Labels by which something selects pods of this chart."""
    text = json.dumps([manifest.get("spec", {}) for manifest in found])
    wanted: list[dict[str, str]] = []

    def keep(node: dict[str, Any]) -> dict[str, Any]:
        if set(node) <= {f"app.kubernetes.io/{n}" for n in ("name", "instance", "component")}:
            wanted.append(node)
        return node

    json.loads(text, object_hook=keep)
    return [selector for selector in wanted if "app.kubernetes.io/component" in selector]


def test_the_webhook_is_called_where_its_certificate_is_good() -> None:
    configuration = the("everything", "MutatingWebhookConfiguration")
    certificate = the("everything", "Certificate")
    names = certificate["spec"]["dnsNames"]
    service = the("everything", "Service", "webhook")
    pod = the("everything", "Deployment", "webhook")["spec"]["template"]["spec"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"]}
    assert secrets["certificate"] == certificate["spec"]["secretName"]
    key = "cert-manager.io/inject-ca-from"
    assert configuration["metadata"]["annotations"][key] == (
        f"memplan/{certificate['metadata']['name']}"
    )
    for webhook in configuration["webhooks"]:
        called = webhook["clientConfig"]["service"]
        assert called["name"] == service["metadata"]["name"]
        assert f"{called['name']}.{called['namespace']}.svc" in names
        assert called["port"] in {port["port"] for port in service["spec"]["ports"]}
        assert webhook["timeoutSeconds"] > 8


@pytest.mark.parametrize("name", ["webhook", "kueue"])
def test_the_settings_reach_the_commands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = the("everything", "Deployment", name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["memplan", name]
    for variable, value in environment(container).items():
        monkeypatch.setenv(variable, value)
    with cli.make_context("memplan", [name]) as outside:
        given = cli.commands[name].make_context(name, container["args"], parent=outside).params
    assert given["server"] == "dns:///memplan-planner.memplan.svc.cluster.local:50051"
    assert len(given["gpus"]) == 2
    assert given["metrics_port"] == 9464
    files = {given["tls_ca"], given["tls_cert"], given["tls_key"]}
    (folder,) = {Path(file).parent for file in files}
    assert str(folder) in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"webhook": "mig", "kueue": None}[name] == given.get("placement")


def test_the_server_s_key_goes_to_servers_alone() -> None:
    for name in ("webhook", "kueue"):
        pod = the("everything", "Deployment", name)["spec"]["template"]["spec"]
        (client,) = [volume for volume in pod["volumes"] if volume["name"] == "client"]
        assert client["secret"]["secretName"] == "memplan-client-tls"
    text = helm_program.template({"tls.existingSecret": "own", "kueue.enabled": "true"})
    (kueue,) = [
        pod for name, pod in manifests.pods(manifests.read(text)) if name.endswith("-kueue")
    ]
    assert kueue["volumes"][0]["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_extra_volumes_are_mounted() -> None:
    for name in ("estimator", "profiler", "kueue"):
        pod = the("everything", "Deployment", name)["spec"]["template"]["spec"]
        assert "extra" in {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        assert mounts["extra"] == "/etc/extra"


def test_rules_and_dashboard_keep_their_own_templates() -> None:
    rule = the("everything", "PrometheusRule")
    source = (chart_files.ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    assert rule["spec"] == yaml.safe_load(source)
    assert "{{ $labels." in source
    dashboard = the("everything", "ConfigMap")["data"]["memplan.json"]
    source = (chart_files.ROOT / "deploy" / "grafana" / "memplan.json").read_text()
    assert json.loads(dashboard) == json.loads(source)
    assert "{{" in source
