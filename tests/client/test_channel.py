"""How a client reaches servers: tokens, certificates that change, several servers, retries."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from authority import Authority
from fake_server import FakePlanner, serving
from grpc_health.v1 import health_pb2

from memplan import (
    CancelledError,
    Client,
    ProfileMemoryResponse,
    ProfileProgress,
    TrainingJob,
    UnavailableError,
)
from memplan.endpoint import VARIABLES, Endpoint

JOB = TrainingJob(micro_batch_size=64)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> dict[str, Any]:
    """What a client is given for mutual TLS; its name is `one`."""
    authority.issue(tmp_path / "client", "one")
    return {
        "root_certificates": authority.certificate,
        "client_certificate": tmp_path / "client" / "cert.pem",
        "client_key": tmp_path / "client" / "key.pem",
    }


@pytest.fixture
def mutual(authority: Authority, tmp_path: Path) -> Iterator[FakePlanner]:
    """A server that wants certificates of its clients."""
    authority.issue(tmp_path / "server")
    pair = tuple((tmp_path / "server" / name).read_bytes() for name in ("key.pem", "cert.pem"))
    credentials = grpc.ssl_server_credentials(
        [pair], authority.certificate.read_bytes(), require_client_auth=True
    )
    with serving(FakePlanner(), credentials=credentials) as planner:
        yield planner


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class TestTokens:
    def test_each_call_has_the_one_in_the_file(
        self, planner: FakePlanner, token_file: Path
    ) -> None:
        with Client(planner.target, token_file=token_file, plaintext_token=True) as client:
            client.plan_job(JOB)
            token_file.write_text("second")
            client.plan_job(JOB)
            with contextlib.suppress(Exception):
                list(client.profile_memory(JOB))
        assert planner.tokens == ["Bearer first", "Bearer second", "Bearer second"]

    @pytest.mark.parametrize("wrong", ["", "two words", "ünsafe", "x" * 5000])
    def test_a_file_that_holds_none(
        self, planner: FakePlanner, token_file: Path, wrong: str
    ) -> None:
        with Client(planner.target, token_file=token_file, plaintext_token=True) as client:
            token_file.write_text(wrong)
            client.plan_job(JOB)
            token_file.unlink()
            client.plan_job(JOB)
            token_file.write_text("third")
            client.plan_job(JOB)
        assert planner.tokens == ["Bearer first", "Bearer first", "Bearer third"]
        token_file.write_text(wrong)
        with pytest.raises(ValueError, match="token"):
            Client(planner.target, token_file=token_file, plaintext_token=True)

    def test_it_is_not_sent_for_all_to_read(self, token_file: Path) -> None:
        with pytest.raises(ValueError, match="tls"):
            Client("planner:50051", token_file=token_file)

    def test_with_tls(self, mutual: FakePlanner, files: Any, token_file: Path) -> None:
        with Client(mutual.target, **files, token_file=token_file) as client:
            client.plan_job(JOB)
        assert (mutual.callers, mutual.tokens) == (["one"], ["Bearer first"])

    def test_retries_show_it_again(self, planner: FakePlanner, token_file: Path) -> None:
        planner.fail("PlanJob", grpc.StatusCode.UNAVAILABLE)
        with (
            Client(
                planner.target, token_file=token_file, plaintext_token=True, retries=1
            ) as client,
            pytest.raises(UnavailableError),
        ):
            client.plan_job(JOB)
        assert planner.tokens == ["Bearer first"] * 2


class TestCertificates:
    def test_new_ones_are_shown(
        self, mutual: FakePlanner, files: Any, authority: Authority
    ) -> None:
        with Client(mutual.target, **files) as client:
            client.plan_job(JOB)
            authority.issue(files["client_key"].parent, "two")
            client.plan_job(JOB)
            client.plan_job(JOB)
        assert mutual.callers == ["one", "two", "two"]

    def test_half_of_a_pair_changes_nothing(
        self, mutual: FakePlanner, files: Any, authority: Authority, tmp_path: Path
    ) -> None:
        authority.issue(tmp_path / "next", "two")
        with Client(mutual.target, **files) as client:
            for name in ("key.pem", "cert.pem"):
                client.plan_job(JOB)
                os.replace(tmp_path / "next" / name, files["client_key"].parent / name)
                client.plan_job(JOB)
        assert mutual.callers == ["one", "one", "one", "two"]

    def test_a_stream_goes_on_over_the_old_ones(
        self, mutual: FakePlanner, files: Any, authority: Authority
    ) -> None:
        gate = threading.Event()
        event = ProfileMemoryResponse(progress=ProfileProgress())

        def events(request: Any) -> Iterator[ProfileMemoryResponse]:
            yield event
            assert gate.wait(30)
            yield event

        mutual.answers["ProfileMemory"] = events
        with Client(mutual.target, **files) as client:
            stream = client.profile_memory(JOB)
            next(stream)
            authority.issue(files["client_key"].parent, "two")
            client.plan_job(JOB)
            client.plan_job(JOB)
            gate.set()
            assert len(list(stream)) == 1
        assert mutual.callers == ["one", "two", "two"]

    def test_closing_ends_calls(self, mutual: FakePlanner, files: Any) -> None:
        entered, gate = threading.Event(), threading.Event()

        def events(request: Any) -> Iterator[ProfileMemoryResponse]:
            yield ProfileMemoryResponse(progress=ProfileProgress())
            entered.set()
            gate.wait(30)

        mutual.answers["ProfileMemory"] = events
        client = Client(mutual.target, **files)
        stream = client.profile_memory(JOB)
        next(stream)
        assert entered.wait(10)
        client.close()
        with pytest.raises(CancelledError):
            next(stream)
        gate.set()

    def test_no_call_fails_while_they_change_again_and_again(
        self, mutual: FakePlanner, files: Any, authority: Authority
    ) -> None:
        stop = threading.Event()
        failures: list[Exception] = []
        calls = [0, 0, 0]

        def ask(index: int, client: Client) -> None:
            while not stop.is_set():
                try:
                    client.plan_job(JOB)
                except Exception as error:
                    failures.append(error)
                calls[index] += 1

        with Client(mutual.target, **files, retries=0) as client:
            threads = [threading.Thread(target=ask, args=(i, client)) for i in range(len(calls))]
            for thread in threads:
                thread.start()
            names = [f"name-{i}" for i in range(5)]
            for name in names:
                authority.issue(files["client_key"].parent, name)
                deadline = time.monotonic() + 30
                while name not in mutual.callers and time.monotonic() < deadline:
                    time.sleep(0.01)
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        assert set(mutual.callers) == {"one", *names}
        assert min(calls) > 0

    def test_files_that_are_none(self, files: Any, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("no PEM")
        for field in files:
            with pytest.raises(ValueError, match="other"):
                Client("planner:50051", **{**files, field: tmp_path / "other"})

    def test_the_name_may_be_another(self, mutual: FakePlanner, files: Any) -> None:
        port = mutual.target.partition(":")[2]
        lasting = f"ipv4:127.0.0.1:{port},127.0.0.1:{port}"
        with Client(lasting, **files, server_name="localhost") as client:
            assert client.plan_job(JOB).placements
        with (
            Client(mutual.target, **files, server_name="else", retries=0) as client,
            pytest.raises(UnavailableError),
        ):
            client.plan_job(JOB)


class TestSeveralServers:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_a_list_takes_turns(self, host: str) -> None:
        with serving(FakePlanner()) as one, serving(FakePlanner()) as two:
            targets = [p.target.replace("127.0.0.1", host) for p in (one, two)]
            nobody = "no-such-name.invalid:50051"
            with Client(f"{targets[0]}, {targets[1]},{nobody}") as client:
                deadline = time.monotonic() + 10
                while not (one.requests and two.requests) and time.monotonic() < deadline:
                    client.plan_job(JOB)
            assert one.requests
            assert two.requests

    def test_a_list_with_tls(self, mutual: FakePlanner, files: Any) -> None:
        with Client(f"{mutual.target},127.0.0.1:{free_port()}", **files) as client:
            assert client.plan_job(JOB).placements
        port = mutual.target.partition(":")[2]
        with Client(f"127.0.0.1:{port},127.0.0.1:{free_port()}", **files) as client:
            assert client.plan_job(JOB).placements

    def test_one_that_drains_is_left_out(self) -> None:
        with serving(FakePlanner()) as one, serving(FakePlanner()) as two:
            with Client(f"{one.target},{two.target}", retries=0) as client:
                deadline = time.monotonic() + 10
                while not (one.requests and two.requests) and time.monotonic() < deadline:
                    client.plan_job(JOB)
                one.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
                time.sleep(0.5)
                before = len(one.requests), len(two.requests)
                for _ in range(20):
                    client.plan_job(JOB)
            assert (len(one.requests), len(two.requests)) == (before[0], before[1] + 20)

    def test_a_proxy_is_not_asked_for_its_health(self, planner: FakePlanner) -> None:
        planner.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        with Client(planner.target, retries=0) as client:
            client.plan_job(JOB)
        with (
            Client(f"dns:///{planner.target}", retries=0) as client,
            pytest.raises(UnavailableError, match="unhealthy"),
        ):
            client.plan_job(JOB)

    def test_lists_that_are_wrong(self) -> None:
        with pytest.raises(ValueError, match="host:port"):
            Client("localhost,localhost:50051")
        with pytest.raises(OSError, match=r"no-such-name\.invalid"):
            Client("no-such-name.invalid:1,no-other.invalid:1")

    def test_a_job_is_not_run_twice(self, planner: FakePlanner) -> None:
        planner.fail("ProfileMemory", grpc.StatusCode.UNAVAILABLE)
        with Client(planner.target) as client, pytest.raises(UnavailableError):
            list(client.profile_memory(JOB))
        assert len(planner.requests) == 1


class TestEnvironment:
    def test_each_field_has_a_variable(self, tmp_path: Path) -> None:
        expected = {
            "target": "dns:///planner:1",
            "retries": 2,
            "tls": True,
            "root_certificates": "ca.pem",
            "client_certificate": "cert.pem",
            "client_key": "key.pem",
            "server_name": "planner",
            "token_file": "token",
            "plaintext_token": True,
            "keepalive": 30.0,
        }
        environment = {VARIABLES[name]: str(value) for name, value in expected.items()}
        found = Endpoint.of(None, environment)
        assert found == Endpoint(**expected)  # type: ignore[arg-type]
        assert {name: getattr(found, name) for name in Endpoint.__slots__} == expected
        assert Endpoint.of(None, environment, retries=0).retries == 0

    def test_a_named_server_gets_nothing_of_it(
        self, planner: FakePlanner, token_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MEMPLAN_SERVER", planner.target)
        monkeypatch.setenv("MEMPLAN_TOKEN_FILE", str(token_file))
        monkeypatch.setenv("MEMPLAN_CLIENT_PLAINTEXT_TOKEN", "true")
        for client in (Client(), Client(planner.target)):
            client.plan_job(JOB)
            client.close()
        assert planner.tokens == ["Bearer first", ""]

    @pytest.mark.parametrize(
        ("variable", "text"),
        [
            ("MEMPLAN_CLIENT_TLS", "maybe"),
            ("MEMPLAN_CLIENT_RETRIES", "-1"),
            ("MEMPLAN_CLIENT_KEEPALIVE", "often"),
        ],
    )
    def test_what_is_wrong_is_named(self, variable: str, text: str) -> None:
        with pytest.raises(ValueError, match=variable):
            Endpoint.of(None, {variable: text})

    @pytest.mark.parametrize(
        "arguments", [{"keepalive": 1.0}, {"keepalive": float("nan")}, {"server_name": "planner"}]
    )
    def test_impossible_arguments(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Client("planner:50051", **arguments)


class _Relay:
    """Passes connections on to a server until it is told to swallow everything, as a network does
    that has forgotten a connection."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.swallowing = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=pair))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self.swallowing:
                    sink.sendall(data)

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


@pytest.mark.slow  # pings are 10 s apart at least
def test_keepalive_notices_a_server_that_is_gone(planner: FakePlanner) -> None:
    with (
        serving(FakePlanner()) as other,
        contextlib.closing(_Relay(other.target)) as relay,
        Client(f"{relay.target},{planner.target}", keepalive=10) as client,
    ):
        deadline = time.monotonic() + 10
        while not (planner.requests and other.requests) and time.monotonic() < deadline:
            client.plan_job(JOB)
        relay.swallowing = True
        began = time.monotonic()
        for _ in range(2):  # one goes through the relay, and is asked again elsewhere
            client.plan_job(JOB, timeout=60)
        assert 5 < time.monotonic() - began < 40
