"""The server as a process of its own: the command, draining, TLS, what it imports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import SOON_S, Starter, estimate, job, wait_until

from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan_server.app import serve
from memplan_server.settings import Settings

SERVER = """
import sys
from memplan_server import app, __main__
real_serve = app.serve
def serve(settings):
    running = real_serve(settings, tasks_module="fake_tasks")
    print(running.port, flush=True)
    return running
app.serve = serve
__main__.main()
print("torch" in sys.modules, flush=True)
"""


@contextmanager
def running(data_dir: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command with fake tasks, as a process; and its port."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = ["--listen=127.0.0.1:0", f"--data-dir={data_dir}", "--workers=1", *flags]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What the process still wrote; it must end well."""
    out, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 0, err
    return out, err


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Whether a worker has begun a task."""
    folder = tmp_path / "log"
    folder.mkdir()
    monkeypatch.setenv("FAKE_TASKS_LOG", str(folder))
    return lambda task: any(path.read_text() == task for path in folder.iterdir())


def test_sigterm_drains(data_dir: Path, begun: Callable[[str], bool]) -> None:
    with running(data_dir) as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as ch:
        stub = MemoryPlannerStub(ch)
        stub.EstimateMemory(estimate("ok"), timeout=SOON_S)
        watch = health_pb2_grpc.HealthStub(ch).Watch(health_pb2.HealthCheckRequest())
        states = iter(watch)
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        under_way = stub.EstimateMemory.future(estimate("slow"), timeout=SOON_S)
        wait_until(lambda: begun("trace fake/slow"))
        process.send_signal(signal.SIGTERM)
        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        assert under_way.result().estimate.device_used_bytes > 0
        _, err = finished(process)
        assert "Traceback" not in err


def test_draining_ends_when_its_time_is_up(data_dir: Path, begun: Callable[[str], bool]) -> None:
    flags = ("--drain-time=0.3", "--log-format=json")
    with (
        running(data_dir, *flags) as (process, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as ch,
    ):
        stub = MemoryPlannerStub(ch)
        stub.EstimateMemory(estimate("ok"), timeout=SOON_S)
        hanging = stub.EstimateMemory.future(estimate("hang"), timeout=SOON_S)
        wait_until(lambda: begun("trace fake/hang"))
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert hanging.code() is not grpc.StatusCode.OK
        _, err = finished(process)
        assert time.monotonic() - started < 25  # the default is 30
        assert '"message": "stopped"' in err


def test_the_serving_process_never_imports_torch(data_dir: Path) -> None:
    with running(data_dir) as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as ch:
        stub = MemoryPlannerStub(ch)
        stub.EstimateMemory(estimate("ok"), timeout=SOON_S)
        process.send_signal(signal.SIGTERM)
        out, _ = finished(process)
        assert out == "False\n"


def test_a_killed_server_finds_its_timelines_again(data_dir: Path, start: Starter) -> None:
    with running(data_dir) as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as ch:
        before = MemoryPlannerStub(ch).EstimateMemory(estimate("ok"), timeout=SOON_S)
        process.kill()
    served = start(data_dir=data_dir)
    assert served.call("EstimateMemory", estimate("ok")) == before
    assert served.metric('memplan_cache_requests_total{cache="timeline_store",result="hit"}') == 1


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memplan_server", *arguments],
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )


def test_wrong_settings_end_the_command() -> None:
    ended = command("--workers=none")
    assert ended.returncode == 2
    assert ended.stderr.startswith("memplan-server: --workers: 'none' is not")


def test_a_taken_port_ends_the_command(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command(f"--listen=127.0.0.1:{port}", f"--data-dir={data_dir}")
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate it signed for localhost, as PEM files."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca"
    )
    (folder / "san").write_text("subjectAltName=DNS:localhost")
    openssl(folder, "req", *curve, "-keyout", "key.pem", "-out", "csr", "-subj", "/CN=localhost")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san")
    openssl(folder, "x509", "-req", "-in", "csr", *signing, "-out", "cert.pem")
    return folder


def tls_settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {"tls_cert": folder / "cert.pem", "tls_key": folder / "key.pem", **more}


def is_served(port: int, credentials: grpc.ChannelCredentials) -> bool:
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=SOON_S)
        except grpc.RpcError:
            return False
        return True


def test_tls(start: Starter, certificates: Path) -> None:
    served = start(**tls_settings(certificates))
    authority = (certificates / "ca.pem").read_bytes()
    assert is_served(served.server.port, grpc.ssl_channel_credentials(authority))
    assert not is_served(served.server.port, grpc.ssl_channel_credentials())


def test_tls_with_client_certificates(start: Starter, certificates: Path) -> None:
    served = start(**tls_settings(certificates, tls_client_ca=certificates / "ca.pem"))
    authority, key, cert = (
        (certificates / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem")
    )
    assert is_served(served.server.port, grpc.ssl_channel_credentials(authority, key, cert))
    assert not is_served(served.server.port, grpc.ssl_channel_credentials(authority))


def test_profilers_with_tls_and_client_certificates(
    start: Starter, certificates: Path, data_dir: Path
) -> None:
    authority = certificates / "ca.pem"
    settings = tls_settings(certificates, tls_client_ca=authority)
    profiler = start(data_dir=data_dir / "profiler", **settings)
    target = (f"localhost:{profiler.server.port}",)
    front = start(profiler=target, profiler_ca=authority, **settings)
    key, cert = ((certificates / name).read_bytes() for name in ("key.pem", "cert.pem"))
    credentials = grpc.ssl_channel_credentials(authority.read_bytes(), key, cert)
    with grpc.secure_channel(f"localhost:{front.server.port}", credentials) as channel:
        request = pb.ProfileMemoryRequest(job=job("ok"))
        *_, last = MemoryPlannerStub(channel).ProfileMemory(request, timeout=SOON_S)
    assert last.profile.micro_batch_size == 1
    assert profiler.metric('memplan_profiles_total{outcome="done"}') == 1


def test_a_renewed_certificate_is_taken_up(
    start: Starter, certificates: Path, tmp_path: Path
) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
    served = start(**tls_settings(tmp_path))
    old = (certificates / "ca.pem").read_bytes()
    assert is_served(served.server.port, grpc.ssl_channel_credentials(old))
    own = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=new")
    openssl(
        tmp_path, "req", "-x509", *own, "-keyout", "key.pem", "-out", "cert.pem",
        "-addext", "subjectAltName=DNS:localhost",
    )  # fmt: skip
    new = (tmp_path / "cert.pem").read_bytes()
    assert is_served(served.server.port, grpc.ssl_channel_credentials(new))
    assert not is_served(served.server.port, grpc.ssl_channel_credentials(old))


def test_missing_tls_files_are_named(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cert\.pem"):
        serve(Settings(listen="127.0.0.1:0", data_dir=data_dir, **tls_settings(tmp_path)))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            "--tls-cert missing.pem --tls-key missing.pem",
            "missing.pem cannot be used: No such file",
        ),
        (
            "--tls-cert empty.pem --tls-key empty.pem",
            "--tls-cert empty.pem and --tls-key empty.pem",
        ),
        ("--tenants missing.toml", "missing.toml cannot be used: No such file"),
        ("--listen=name.invalid:5", "name.invalid:5 cannot be served on: "),
        ("--listen=127.0.0.1:TAKEN", "TAKEN cannot be served on: Address already in use"),
        (
            "--metrics-port=TAKEN",
            "--metrics-port TAKEN cannot be served on: Address already in use",
        ),
    ],
)
def test_what_cannot_be_served_with_is_named(tmp_path: Path, flags: str, said: str) -> None:
    (tmp_path / "empty.pem").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--listen=127.0.0.1:0", *flags.replace("TAKEN", port).split()]
        result = subprocess.run(
            [sys.executable, "-m", "memplan_server", "--data-dir=data", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert result.returncode == 1
    assert said.replace("TAKEN", port) in result.stderr.splitlines()[-1]
