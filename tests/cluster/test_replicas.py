"""Three servers behind the client's own balancing, and behind Envoy: killed, restarted, under load.

Figures are those of one small machine: a few hundred calls, a few seconds each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from replicas import ENVOY, Replica, envoy, load, wait_until

from memplan import Client

pytestmark = pytest.mark.integration

BALANCERS = ("client", "envoy")


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Three servers with data of their own, which run before and after each test."""
    folder = tmp_path_factory.mktemp("replicas")
    delays = ("--shutdown-delay=1.5", "--shutdown-delay=1.5", "--shutdown-delay=0")
    found = [
        Replica(folder / str(i), "--prestart-workers", delay) for i, delay in enumerate(delays)
    ]
    with ExitStack() as stack:
        for replica in found:
            replica.start()
            stack.callback(replica.kill)
        for replica in found:
            wait_until(replica.is_ready)
        yield found


@pytest.fixture(params=BALANCERS)
def client(
    request: pytest.FixtureRequest, replicas: list[Replica], tmp_path: Path
) -> Iterator[Client]:
    """A client that balances and repeats, or one that does neither and has Envoy before it."""
    with ExitStack() as stack:
        if request.param == "client":
            target, options = ",".join(r.target for r in replicas), {}
        else:
            if not ENVOY.exists():
                pytest.skip("there is no Envoy for this machine")
            # Even where its client takes Envoy for a server whose health it may ask for.
            target = "dns:///" + stack.enter_context(envoy(tmp_path, replicas))
            options = {"retries": 0}
        yield stack.enter_context(Client(target, **options))


def test_no_call_fails_when_a_server_dies(client: Client, replicas: list[Replica]) -> None:
    before = [replica.answered() for replica in replicas]
    with load(client) as calls:
        wait_until(lambda: all(r.answered() > b for r, b in zip(replicas, before, strict=True)))
        replicas[1].kill()
        calls.wait_for(200)
        replicas[1].start()
        wait_until(replicas[1].is_ready)
        own = replicas[1].answered()
        wait_until(lambda: replicas[1].answered() > own + 10)  # it is used again
    assert calls.failures == []
    assert calls.answered > 200


def test_no_call_is_lost_while_servers_are_restarted(
    client: Client, replicas: list[Replica]
) -> None:
    with load(client) as calls:
        for replica in replicas:
            calls.wait_for(50)
            replica.restart()
            calls.wait_for(50)
    assert calls.failures == []
    assert calls.answered >= 300


def test_what_drains_says_so_before_it_refuses_calls(replicas: list[Replica]) -> None:
    target = ",".join(replica.target for replica in replicas)
    with Client(target, retries=0) as client, load(client) as calls:
        calls.wait_for(50)
        replicas[0].restart()
        calls.wait_for(50)
    assert calls.failures == []
