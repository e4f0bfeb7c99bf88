"""The queue before devices: bounded, fair between peers, one job at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

import pytest

from memplan.types import DeviceType
from memplan_server.errors import LimitExceeded
from memplan_server.profiling.devices import Device
from memplan_server.profiling.queue import DeviceQueue, Place

ONE, TWO = (Device(type=DeviceType.CUDA, name=n, uuid=n, gpu_type=n) for n in ("one", "two"))


def place(
    queue: DeviceQueue, peer: str, *devices: Device, limit: float = 10
) -> AbstractContextManager[Place]:
    wanted = devices or queue.devices
    return queue.place(peer, time_limit_s=limit, suitable=lambda d: d in wanted)


def test_peers_take_turns() -> None:
    queue = DeviceQueue([ONE], most_waiting=10)
    with ExitStack() as stack:
        names = ["a1", "a2", "a3", "b1", "b2", "c1"]
        blocks = {name: ExitStack() for name in ["first", *names]}
        for block in blocks.values():
            stack.push(block)
        places = {n: blocks[n].enter_context(place(queue, n[0])) for n in blocks}
        order, current = [], "first"
        while len(order) < len(names):
            blocks[current].close()
            current = next(n for n in names if places[n].device and n not in order)
            order.append(current)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_devices_are_given_to_those_who_can_use_them() -> None:
    queue = DeviceQueue([ONE, TWO], most_waiting=10)
    with place(queue, "a", ONE) as first, place(queue, "b", ONE) as waits:
        assert first.device is ONE
        assert waits.device is None
        with place(queue, "c", TWO) as other:
            assert other.device is TWO
            standing = queue.standing(waits)
            assert standing is not None
            assert standing.position == 1
            assert 9 < standing.expected_s <= 10
    with place(queue, "d", ONE) as next_one:
        assert next_one.device is ONE


def test_expected_waits_add_up() -> None:
    queue = DeviceQueue([ONE], most_waiting=10)
    with place(queue, "a", limit=5), place(queue, "b", limit=7), place(queue, "c") as last:
        standing = queue.standing(last)
        assert standing is not None
        assert standing.position == 2
        assert 11 < standing.expected_s <= 12


def test_it_is_bounded() -> None:
    queue = DeviceQueue([ONE], most_waiting=1)
    with place(queue, "a"), place(queue, "b"):
        with pytest.raises(LimitExceeded) as raised, place(queue, "c"):
            pass
        assert raised.value.retry_after_s is not None
        assert len(queue) == 1
    with place(queue, "c") as next_one:
        assert next_one.device is ONE


def test_a_block_that_fails_gives_its_place_back() -> None:
    queue = DeviceQueue([ONE], most_waiting=1)
    with pytest.raises(RuntimeError), place(queue, "a"):
        raise RuntimeError
    with pytest.raises(RuntimeError), place(queue, "a"), place(queue, "b"):
        raise RuntimeError
    assert len(queue) == 0
    with place(queue, "c") as next_one:
        assert next_one.device is ONE
