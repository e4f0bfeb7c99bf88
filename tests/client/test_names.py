"""A name with several addresses, as a headless Service has: its servers are used as they come and
go."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from fake_server import FakePlanner, serving

from memplan import Client, TrainingJob

JOB = TrainingJob(micro_batch_size=64)
ADDRESS_RECORD, INTERNET = 1, 1
FIRST, SECOND, THIRD = (f"127.0.0.{number}" for number in (11, 12, 13))


class NameServer:
    """Answers every name with the same addresses, which live for no time."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self.addresses = ()
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        """RFC 1035: header, question, and a record for each address where addresses are wanted."""
        end = query.index(0, 12) + 5
        wanted = self.addresses if query[end - 3] == ADDRESS_RECORD else ()
        head = query[:2] + b"\x81\x80" + b"\x00\x01" + len(wanted).to_bytes(2, "big") + bytes(4)
        record = b"\xc0\x0c" + bytes([0, ADDRESS_RECORD, 0, INTERNET]) + bytes(4) + b"\x00\x04"
        return head + query[12:end] + b"".join(record + socket.inet_aton(a) for a in wanted)


@pytest.fixture
def names() -> Iterator[NameServer]:
    with contextlib.closing(NameServer(FIRST, SECOND)) as names:
        yield names


def ask_until(client: Client, condition: Callable[[], object]) -> None:
    """Ask until it holds; no call may fail."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        client.plan_job(JOB)


@pytest.mark.slow  # names are looked up every five seconds
def test_servers_come_and_go(names: NameServer) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(serving(FakePlanner(), address=f"{FIRST}:0"))
        port = first.target.partition(":")[2]
        third = stack.enter_context(serving(FakePlanner(), address=f"{THIRD}:{port}"))
        target = f"dns://{names.target}/planner.test:{port}"
        with serving(FakePlanner(), address=f"{SECOND}:{port}") as second:
            client = stack.enter_context(Client(target))
            ask_until(client, lambda: first.requests and second.requests)
            assert not third.requests
            names.addresses = (FIRST, THIRD)
        ask_until(client, lambda: third.requests)
