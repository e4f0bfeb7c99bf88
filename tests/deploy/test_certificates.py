"""The Jobs that make a certificate for the webhook, against an API with the rights they have."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import helm_program
import manifests
import pytest
from fake_api import FakeApi, serving
from manifests import Manifest

pytestmark = pytest.mark.integration

SCRIPT = helm_program.CHART / "files" / "certificate.py"
SECRET = ("secrets", "memplan-webhook")
CONFIGURATION = ("mutatingwebhookconfigurations", "memplan")
VALUES = {"webhook.enabled": "true", "webhook.certificates.mode": "self-signed"}
FILES = ["-keyout", "key.pem", "-out", "ca.crt", "-days", "2"]


@cache
def rendered() -> list[Manifest]:
    return manifests.read(helm_program.template(VALUES))


def of_kind(kind: str) -> list[Manifest]:
    return [manifest for manifest in rendered() if manifest["kind"] == kind]


def make_certificate(folder: Path, *hosts: str) -> None:
    """A certificate of the tests' own, in key.pem and ca.crt."""
    names = ",".join(hosts)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=test"
    subprocess.run(
        [*command.split(), *FILES, "-addext", f"subjectAltName={names}"],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    make_certificate(tmp_path, "IP:127.0.0.1")
    rules = [rule for kind in ("Role", "ClusterRole") for m in of_kind(kind) for rule in m["rules"]]
    (configuration,) = of_kind("MutatingWebhookConfiguration")
    fake = FakeApi(rules=rules, objects={CONFIGURATION: configuration})
    (tmp_path / "token").write_text(fake.token)
    (tmp_path / "namespace").write_text("memplan")
    with serving(fake, tmp_path / "ca.crt", tmp_path / "key.pem"):
        yield fake


def run(api: FakeApi, folder: Path, task: str) -> subprocess.CompletedProcess[str]:
    """Run what the Job of a task runs."""
    (job,) = [m for m in of_kind("Job") if m["metadata"]["name"].endswith(f"-{task}")]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "/etc/memplan/certificate.py", task]
    place = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
    return subprocess.run(
        [sys.executable, SCRIPT, task, *container["args"], f"--account={folder}"],
        env=os.environ | place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_script_in_the_release_is_the_one_tested() -> None:
    (script,) = of_kind("ConfigMap")
    assert script["data"]["certificate.py"].strip() == SCRIPT.read_text().strip()
    (first, second) = sorted(of_kind("Job"), key=lambda job: job["metadata"]["name"])
    hooks = [job["metadata"]["annotations"]["helm.sh/hook"] for job in (first, second)]
    assert hooks == ["pre-install,pre-upgrade", "post-install,post-upgrade"]


def test_a_webhook_with_it_is_trusted(api: FakeApi, tmp_path: Path) -> None:
    made = run(api, tmp_path, "secret")
    assert (made.returncode, made.stderr) == (0, "")
    assert "Made the Secret memplan-webhook" in made.stdout
    assert api.objects[SECRET]["type"] == "kubernetes.io/tls"
    told = run(api, tmp_path, "trust")
    assert (told.returncode, told.stderr) == (0, "")
    bundles = {w["clientConfig"]["caBundle"] for w in api.objects[CONFIGURATION]["webhooks"]}
    (bundle,) = bundles
    data = {name: base64.b64decode(text) for name, text in api.objects[SECRET]["data"].items()}
    (called,) = {w["clientConfig"]["service"]["name"] for w in rendered_webhooks()}
    host = f"{called}.memplan.svc"
    assert handshake(data, base64.b64decode(bundle).decode(), host, tmp_path) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(data, base64.b64decode(bundle).decode(), "other.memplan.svc", tmp_path)


def rendered_webhooks() -> list[Manifest]:
    (configuration,) = of_kind("MutatingWebhookConfiguration")
    return configuration["webhooks"]


def handshake(data: dict[str, bytes], trusted: str, host: str, folder: Path) -> str | None:
    """Connect as the API server does, which trusts the bundle alone. Returns the TLS version."""
    for name, content in data.items():
        (folder / name).write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    client = ssl.create_default_context(cadata=trusted)
    left, right = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(left, server_side=True).close()
        except ssl.SSLError:
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=host) as connection:
            return connection.version()
    finally:
        right.close()
        thread.join()


def test_a_good_certificate_is_left_alone(api: FakeApi, tmp_path: Path) -> None:
    run(api, tmp_path, "secret")
    before = dict(api.objects[SECRET]["data"])
    again = run(api, tmp_path, "secret")
    assert (again.returncode, again.stdout) == (
        0,
        "The Secret memplan-webhook is good for another year.\n",
    )
    assert api.objects[SECRET]["data"] == before


@pytest.mark.parametrize("host", ["memplan-webhook.memplan.svc", "other.memplan.svc"])
def test_one_that_ends_soon_or_is_for_others_is_replaced(
    api: FakeApi, tmp_path: Path, host: str
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    make_certificate(old, f"DNS:{host}")
    held = base64.b64encode((old / "ca.crt").read_bytes()).decode()
    api.objects[SECRET] = {"metadata": {}, "data": {"tls.crt": held, "tls.key": ""}}
    result = run(api, tmp_path, "secret")
    assert "Made a new certificate" in result.stdout
    assert api.objects[SECRET]["data"]["tls.crt"] != held
    assert api.objects[SECRET]["data"]["tls.key"]


def test_what_the_api_refuses_is_said(api: FakeApi, tmp_path: Path) -> None:
    api.rules.clear()
    result = run(api, tmp_path, "secret")
    assert result.returncode == 1
    assert "answers 403" in result.stderr
    assert "cannot get secrets memplan-webhook" in result.stderr


def test_it_talks_to_the_cluster_s_own_api_alone(api: FakeApi, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_certificate(other, "IP:127.0.0.1")
    (tmp_path / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
    result = run(api, tmp_path, "secret")
    assert result.returncode == 1
    assert "cannot be asked" in result.stderr
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    assert api.asked == []
