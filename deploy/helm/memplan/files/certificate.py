"""Makes the webhook's certificate, and tells the API server of it; what the chart's Jobs run.

    certificate.py secret --name memplan-webhook --host memplan-webhook.memplan.svc
    certificate.py trust --name memplan-webhook --configuration memplan

`secret` leaves a Secret alone that is there and good for a year or more. Needs the `openssl`
command, else the standard library. Exits with 1 and a sentence, that of the API server where it
refuses.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DAYS = 3650
"""How long a certificate is good for."""
YEAR_S = 365 * 86_400
CONFIGURATION = """
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = memplan-webhook
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {hosts}
"""


class Api:
    """The Kubernetes API, as the pod's service account."""

    def __init__(self, account: Path = ACCOUNT) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self.url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self.token = (account / "token").read_text().strip()
        self.namespace = (account / "namespace").read_text().strip()
        self._context = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def call(self, method: str, path: str, body: object = None, kind: str = "") -> dict:
        """The answer. Raises HTTPError."""
        request = Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": f"application/{kind or 'json'}",
            },
        )
        with urlopen(request, timeout=30, context=self._context) as answer:
            return json.load(answer)

    def get(self, path: str) -> dict | None:
        """An object, or None where there is none."""
        try:
            return self.call("GET", path)
        except HTTPError as error:
            if error.code != 404:
                raise
            return None


def make_certificate(hosts: list[str]) -> dict[str, str]:
    """A key and a certificate that it signs itself, as the data of a Secret."""
    names = ", ".join(f"DNS:{host}" for host in hosts)
    with tempfile.TemporaryDirectory() as folder:
        configuration, key, chain = (Path(folder) / name for name in ("conf", "key", "crt"))
        configuration.write_text(CONFIGURATION.format(hosts=names))
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -sha256"
        files = ["-config", configuration, "-keyout", key, "-out", chain, "-days", str(DAYS)]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        pair = {"tls.key": key.read_bytes(), "tls.crt": chain.read_bytes()}
    return {name: base64.b64encode(content).decode() for name, content in pair.items()}


def is_good(data: dict[str, str], hosts: list[str]) -> bool:
    """Whether a Secret's certificate is for these names and good for another year."""
    certificate = base64.b64decode(data.get("tls.crt", ""))
    checks = [["-checkend", str(YEAR_S)], *(["-checkhost", host] for host in hosts)]
    for check in checks:
        command = ["openssl", "x509", "-noout", *check]
        done = subprocess.run(command, input=certificate, capture_output=True, check=False)
        if done.returncode or b"NOT match" in done.stdout:
            return False
    return True


def secret(api: Api, name: str, hosts: list[str]) -> str:
    """Make the Secret, or make it new. Returns what was done."""
    secrets = f"/api/v1/namespaces/{api.namespace}/secrets"
    found = api.get(f"{secrets}/{name}")
    if found is None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "memplan"}},
            "type": "kubernetes.io/tls",
            "data": make_certificate(hosts),
        }
        api.call("POST", secrets, body)
        return f"Made the Secret {name}."
    if is_good(found.get("data") or {}, hosts):
        return f"The Secret {name} is good for another year."
    change = {"data": make_certificate(hosts)}
    api.call("PATCH", f"{secrets}/{name}", change, "merge-patch+json")
    return f"Made a new certificate in the Secret {name}."


def trust(api: Api, name: str, configuration: str) -> str:
    """Name the certificate in the MutatingWebhookConfiguration. Returns what was done."""
    held = api.call("GET", f"/api/v1/namespaces/{api.namespace}/secrets/{name}")
    path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{configuration}"
    webhooks = api.call("GET", path)["webhooks"]
    authority = held["data"]["tls.crt"]
    change = [
        {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": authority}
        for index in range(len(webhooks))
    ]
    api.call("PATCH", path, change, "json-patch+json")
    return f"The API server trusts the certificate for {len(webhooks)} webhooks."


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=["secret", "trust"])
    parser.add_argument("--name", required=True, help="the Secret")
    parser.add_argument("--host", action="append", default=[], help="a DNS name of the webhook")
    parser.add_argument("--configuration", help="the MutatingWebhookConfiguration")
    parser.add_argument("--account", type=Path, default=ACCOUNT, help="folder of the token")
    given = parser.parse_args()
    api = Api(given.account)
    try:
        if given.task == "secret":
            print(secret(api, given.name, given.host))
        else:
            print(trust(api, given.name, given.configuration))
    except HTTPError as error:
        sys.exit(f"{error.url} answers {error.code}: {error.read().decode(errors='replace')}")
    except URLError as error:
        sys.exit(f"{api.url} cannot be asked: {error.reason}")
    except FileNotFoundError as error:
        sys.exit(f"The image lacks the command {error.filename}: build it on a base that has it.")


if __name__ == "__main__":
    main()
