"""A real API server on free ports of this machine, with etcd and the controller of Jobs.

`tests/kubernetes/control_plane.sh` builds its programs. There is no node: Pods are stored and never
run. Services of the type ExternalName lead the API server to processes of this machine, so that
webhooks are called by the name of their Service.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from reviewing import ROOT, Pair

Object = dict[str, Any]
VARIABLE = "MEMPLAN_KUBE_APISERVER"
DEFAULT = ROOT / "build" / "kubernetes" / "kube-apiserver"
CONTROLLERS = "job,serviceaccount,serviceaccount-token,root-ca-cert-publisher"
START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """A running one."""

    folder: Path
    kubectl_path: Path
    port: int
    ca: Path
    restart: Callable[[], None]
    """End the API server, and start it again."""

    def kubeconfig(self, token: str) -> Path:
        """A file for whoever has a token."""
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.ca),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = self.folder / f"kubeconfig-{token[-8:]}"
        path.write_text(yaml.safe_dump(config))
        return path

    def kubectl(
        self, *arguments: str, given: object = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as an administrator; `given` are objects for `--filename -`."""
        items = given if isinstance(given, list) else [] if given is None else [given]
        done = subprocess.run(
            [self.kubectl_path, "--kubeconfig", self.kubeconfig("administrator"), *arguments],
            input=yaml.safe_dump_all(items),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def bash(self, commands: str, **variables: str) -> None:
        """Run commands that use kubectl."""
        path = f"{self.kubectl_path.parent}:{os.environ['PATH']}"
        settings = {"KUBECONFIG": str(self.kubeconfig("administrator")), "PATH": path}
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env=os.environ | settings | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    def get(self, kind: str, name: str, namespace: str = "ml") -> Object:
        """An object as it is stored."""
        done = self.kubectl("get", kind, name, "--namespace", namespace, "--output", "json")
        found: Object = json.loads(done.stdout)
        return found

    def listed(self, kind: str, *arguments: str, namespace: str = "ml") -> list[Object]:
        """Objects as they are stored."""
        done = self.kubectl("get", kind, "--namespace", namespace, "--output", "json", *arguments)
        found: list[Object] = json.loads(done.stdout)["items"]
        return found


def kube_apiserver() -> Path:
    """The API server to test with; skips the test where there is none."""
    path = Path(os.environ.get(VARIABLE, DEFAULT))
    if not path.exists():
        pytest.skip(f"there is no API server at {path}: make kubernetes builds one")
    if shutil.which("etcd") is None:
        pytest.skip("there is no etcd, which the API server stores in")
    return path


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A control plane with the namespaces `memplan` and `ml`, ended with the block."""
    apiserver = kube_apiserver()
    pair = Pair(cert=folder / "apiserver.crt", key=folder / "apiserver.key", names="IP:127.0.0.1")
    pair.make()
    etcd, peer, port, controllers = free_ports(4)
    (folder / "tokens.csv").write_text("administrator,ada@example.org,1,system:masters\n")
    options = _apiserver(folder, pair, etcd, port)
    with ExitStack() as stack:
        stack.enter_context(_running(folder, "etcd", _etcd(folder, etcd, peer)))
        server = stack.enter_context(ExitStack())

        def restart() -> None:
            server.close()
            server.enter_context(_running(folder, str(apiserver), options))
            wait_for(lambda: _ready(found), "the API server is not ready", folder)

        kubectl = apiserver.with_name("kubectl")
        found = ControlPlane(
            folder=folder, kubectl_path=kubectl, port=port, ca=pair.cert, restart=restart
        )
        restart()
        manager = str(apiserver.with_name("kube-controller-manager"))
        stack.enter_context(_running(folder, manager, _manager(found, pair, controllers)))
        for namespace in ("memplan", "ml"):
            found.kubectl("create", "namespace", namespace)
        wait_for(lambda: _has_accounts(found), "namespaces get no service accounts", folder)
        yield found


def _etcd(folder: Path, port: int, peer: int) -> Mapping[str, str]:
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return {
        "data-dir": str(folder / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
    }


def _apiserver(folder: Path, pair: Pair, etcd: int, port: int) -> Mapping[str, str]:
    return {
        "etcd-servers": f"http://127.0.0.1:{etcd}",
        "bind-address": "127.0.0.1",
        "secure-port": str(port),
        "tls-cert-file": str(pair.cert),
        "tls-private-key-file": str(pair.key),
        "token-auth-file": str(folder / "tokens.csv"),
        "authorization-mode": "RBAC",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": str(pair.cert),
        "service-account-signing-key-file": str(pair.key),
        "service-cluster-ip-range": "10.0.0.0/24",
        "endpoint-reconciler-type": "none",
    }


def _manager(plane: ControlPlane, pair: Pair, port: int) -> Mapping[str, str]:
    return {
        "kubeconfig": str(plane.kubeconfig("administrator")),
        "controllers": CONTROLLERS,
        "service-account-private-key-file": str(pair.key),
        "root-ca-file": str(pair.cert),
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
        "secure-port": str(port),
        "port": "0",
        "cert-dir": str(plane.folder),
    }


@contextmanager
def _running(folder: Path, program: str, options: Mapping[str, str]) -> Iterator[None]:
    """A process that logs into the folder, until the block ends."""
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    with (
        (folder / f"{Path(program).name}.log").open("a") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


def wait_for(condition: Callable[[], bool], otherwise: str, folder: Path | None = None) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + START_S
    while not condition():
        logs = "" if folder is None else "\n".join(_tail(path) for path in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"{otherwise}\n{logs}"
        time.sleep(0.1)


def _tail(path: Path) -> str:
    return f"{path.name}: {path.read_text()[-2000:]}"


def _ready(plane: ControlPlane) -> bool:
    return plane.kubectl("get", "--raw", "/readyz", check=False).returncode == 0


def _has_accounts(plane: ControlPlane) -> bool:
    done = [
        plane.kubectl(
            "get", "serviceaccount/default", "--namespace", name, "--output", "json", check=False
        )
        for name in ("memplan", "ml")
    ]
    return all(one.returncode == 0 and json.loads(one.stdout).get("secrets") for one in done)
