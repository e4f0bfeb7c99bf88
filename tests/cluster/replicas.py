"""Several servers as processes, load on them, and Envoy before them."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memplan import Client, InputTensor, Layer, LayerStack, Linear, Model, TrainingJob

SOON_S = 60.0
ENVOY = Path(sys.executable).with_name("envoy")
CONFIG = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
THREADS = 6


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until it holds; fails when that is not soon."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def job(batch_size: int) -> TrainingJob:
    """A small one; each batch size takes a computation of its own."""
    layers = (Layer(linear=Linear(out_features=16)),)
    return TrainingJob(
        model=Model(layer_stack=LayerStack(layers=layers)),
        inputs=(InputTensor(shape=(16,)),),
        micro_batch_size=batch_size,
    )


class Replica:
    """The command `memplan-server`, on ports that stay its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.target = f"127.0.0.1:{self.port}"
        self._flags = flags
        self._folder = folder
        folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to serve, with data and log where they were."""
        flags = (
            f"--listen={self.target}",
            f"--metrics-port={self.metrics_port}",
            f"--data-dir={self._folder}",
            "--workers=1",
            *self._flags,
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "memplan_server", *flags], env=environment, stderr=log
            )

    def is_ready(self) -> bool:
        """Whether it answers with an estimate: its worker has started, too."""
        with Client(self.target, retries=0, timeout=SOON_S) as client:
            try:
                return client.estimate_memory(job(1)).estimate is not None
            except Exception:
                assert self._process is not None
                assert self._process.poll() is None, (self._folder / "log").read_text()
                return False

    def answered(self) -> float:
        """Estimates since it started."""
        try:
            with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
                lines = page.read().decode().splitlines()
        except URLError:
            return 0.0
        method = 'memplan_requests_total{code="OK",method="memplan.v1.MemoryPlanner/EstimateMemory"'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(method))

    def kill(self) -> None:
        """End it as a machine that loses power."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """As Kubernetes does it: SIGTERM, wait for the end, start again, wait until it serves."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(SOON_S) == 0
        self.start()
        wait_until(self.is_serving)

    def is_serving(self) -> bool:
        """Whether it says so."""
        with grpc.insecure_channel(self.target) as channel:
            try:
                asked = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=SOON_S
                )
            except grpc.RpcError:
                return False
            return bool(asked.status == health_pb2.HealthCheckResponse.SERVING)


class Load:
    """What became of the calls of several threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sizes = itertools.count(2)
        self._stop = threading.Event()
        self.answered = 0
        self.failures: list[Exception] = []
        self._lock = threading.Lock()

    def ask(self) -> None:
        """Ask until it is over."""
        while not self._stop.is_set():
            with self._lock:
                size = next(self._sizes)
            try:
                answer = self._client.estimate_memory(job(size), timeout=SOON_S)
                assert answer.estimate is not None
                assert answer.estimate.micro_batch_size == size
            except Exception as error:
                self.failures.append(error)
            with self._lock:
                self.answered += 1

    def wait_for(self, more: int) -> None:
        """Until so many more calls have been answered."""
        wanted = self.answered + more
        wait_until(lambda: self.answered >= wanted)

    def end(self) -> None:
        """Ask no more."""
        self._stop.set()


@contextmanager
def load(client: Client) -> Iterator[Load]:
    """Calls from several threads while the block lasts."""
    load = Load(client)
    threads = [threading.Thread(target=load.ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.end()
        for thread in threads:
            thread.join()


@contextmanager
def envoy(folder: Path, replicas: list[Replica]) -> Iterator[str]:
    """Envoy as in deploy/envoy, with nothing but addresses changed; its own."""
    config = yaml.safe_load(CONFIG.read_text())
    port, admin = free_port(), free_port()
    _set_address(config["admin"]["address"], admin)
    resources = config["static_resources"]
    _set_address(resources["listeners"][0]["address"], port)
    (cluster,) = resources["clusters"]
    cluster["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [{"endpoint": {"address": _set_address({}, r.port)}} for r in replicas]}
    ]
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [ENVOY, "--config-path", path, "--use-dynamic-base-id", "--concurrency", "1"]
    with (folder / "envoy.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_until(lambda: _healthy(admin) == len(replicas))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _set_address(entry: dict[str, Any], port: int) -> dict[str, Any]:
    entry["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    return entry


def _healthy(admin: int) -> int:
    """Servers that Envoy takes for healthy."""
    try:
        with urlopen(f"http://127.0.0.1:{admin}/clusters") as page:
            return sum(b"health_flags::healthy" in line for line in page)
    except OSError:
        return 0
