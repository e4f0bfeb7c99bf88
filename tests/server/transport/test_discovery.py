"""Profilers behind one name, as pods behind a headless Service."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from serving import SOON_S, Served
from test_profile_memory import Starter, profile, request, running

from memplan_server.profiling import discovery
from memplan_server.profiling.discovery import Discovery, addresses

NAME = "profilers.test"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that the name has, for this test to change; nothing is kept between profiles."""
    found: list[str] = []
    asked = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != NAME:
            return asked(host, port, *rest, **more)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [
            (k, socket.SOCK_STREAM, 6, "", (a, int(port)))
            for k, a in zip(kinds, found, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(discovery, "KEPT_S", 0.0)
    return found


def free_port(*hosts: str) -> int:
    """One that is free on all of these addresses."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_server((hosts[0], 0)))
        port = int(first.getsockname()[1])
        for host in hosts[1:]:
            stack.enter_context(socket.create_server((host, port)))
        return port


def done(server: Served, host: str) -> int:
    """Profiles that it has measured; its metrics are on its own address."""
    with urlopen(f"http://{host}:{server.server.metrics_port}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = re.search(r'^memplan_profiles_total{outcome="done"} (\d+)', text, flags=re.M)
    assert found is not None
    return int(found[1])


def test_every_address_of_a_name_is_a_profiler(
    start: Starter, data_dir: Path, answers: list[str]
) -> None:
    hosts = ("127.0.0.1", "127.0.0.2")
    port = free_port(*hosts)
    busy, idle = (
        start(listen=f"{host}:{port}", data_dir=data_dir / host, profile_queue_length=1)
        for host in hosts
    )
    answers[:] = hosts
    front = start(profiler=(f"dns:///{NAME}:{port}",))
    assert profile(front)[-1].HasField("profile")
    before = done(idle, hosts[1])
    assert done(busy, hosts[0]) + before == 1
    with running(busy, "hang"):
        waiting = busy.stub.ProfileMemory(request("hang"), timeout=SOON_S)
        next(waiting)
        assert profile(front)[-1].HasField("profile")
        waiting.cancel()
    assert done(idle, hosts[1]) == before + 1


def test_profilers_come_and_go(start: Starter, data_dir: Path, answers: list[str]) -> None:
    hosts = ("127.0.0.1", "127.0.0.2")
    port = free_port(*hosts)
    first, second = (start(listen=f"{host}:{port}", data_dir=data_dir / host) for host in hosts)
    answers[:] = hosts[:1]
    front = start(profiler=(f"dns:///{NAME}:{port}",))
    assert profile(front)[-1].HasField("profile")
    answers[:] = hosts[1:]
    assert profile(front)[-1].HasField("profile")
    assert (done(first, hosts[0]), done(second, hosts[1])) == (1, 1)


class FakeRemote:
    def __init__(self, target: str, name: str) -> None:
        self.target, self.name = target, name


def test_what_is_known_stays_the_same_object(answers: list[str]) -> None:
    found = Discovery(targets=(f"dns:///{NAME}:1", "gpu-7:2"), make=FakeRemote)  # type: ignore[arg-type]
    answers[:] = ["192.0.2.1", "192.0.2.2"]
    before = found()
    assert [r.target for r in before] == ["ipv4:192.0.2.1:1", "ipv4:192.0.2.2:1", "gpu-7:2"]
    assert [r.name for r in before] == [NAME, NAME, ""]  # type: ignore[attr-defined]
    answers[:] = ["192.0.2.2", "192.0.2.3"]
    after = found()
    assert after[0] is before[1]
    assert after[2] is before[2]
    assert after[1].target == "ipv4:192.0.2.3:1"


def test_a_name_without_addresses_is_left_to_grpc(answers: list[str]) -> None:
    assert answers == []
    target = f"dns:///{NAME}:1"
    (only,) = Discovery(targets=(target,), make=FakeRemote)()  # type: ignore[arg-type]
    assert only.target == target


def test_one_server_with_both_kinds_of_address_is_one(answers: list[str]) -> None:
    answers[:] = ["2001:db8::1", "192.0.2.1", "2001:db8::2"]
    assert addresses(f"dns:///{NAME}:7") == ["ipv6:[2001:db8::1]:7", "ipv6:[2001:db8::2]:7"]
