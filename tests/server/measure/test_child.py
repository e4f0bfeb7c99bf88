"""Processes that run a function: what they tell, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memplan_server.calls import Call
from memplan_server.errors import WorkerFailure
from memplan_server.measure.child import Child, ChildDied, in_child
from memplan_server.measure.child_process import Kind

SOON_S = 30.0
ORPHAN = """
import time
from memplan_server.measure.child import Child
child = Child("children:start_another_and_sleep", reporting=True)
print(child.pid, child.next(30)[1], flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_reports_before_it_returns() -> None:
    with Child("children:count_to", 3, reporting=True).ended() as child:
        told = [child.next(SOON_S) for _ in range(4)]
    assert told == [
        (Kind.REPORTED, 0),
        (Kind.REPORTED, 1),
        (Kind.REPORTED, 2),
        (Kind.RETURNED, "done"),
    ]
    with Child("children:count_to", 3, reporting=True).ended() as child:
        assert child.result(SOON_S) == "done"


def test_the_environment_is_changed_for_the_child_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPLAN_TEST", "ours")
    assert in_child("children:variable", "MEMPLAN_TEST") == "ours"
    changes: list[tuple[dict[str, str | None], str | None]] = [
        ({"MEMPLAN_TEST": "theirs"}, "theirs"),
        ({"MEMPLAN_TEST": None}, None),
    ]
    for environment, expected in changes:
        with Child("children:variable", "MEMPLAN_TEST", environment=environment).ended() as child:
            assert child.result(SOON_S) == expected
    assert os.environ["MEMPLAN_TEST"] == "ours"


def test_the_allocator_is_set_by_the_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    assert in_child("children:variable", "PYTORCH_ALLOC_CONF") is None


def test_memory_is_bounded() -> None:
    with (
        Child("children:allocate", 1 << 30, memory_limit_bytes=256 << 20).ended() as child,
        pytest.raises(WorkerFailure, match="MemoryError"),
    ):
        child.result(SOON_S)


def test_what_a_child_has_started_ends_with_it() -> None:
    with Child("children:start_another_and_sleep", reporting=True).ended() as child:
        _, other = child.next(SOON_S)
        child.kill()
        with pytest.raises(ChildDied, match="SIGKILL"):
            child.next(SOON_S)
    wait_until(lambda: not runs(other) and not runs(child.pid))
    child.kill()  # of no effect any more


def test_children_end_with_a_parent_that_is_killed() -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child, other = map(int, parent.stdout.readline().split())
        assert runs(child)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not runs(child) and not runs(other))


def test_callbacks_of_a_call_hold_for_their_block() -> None:
    call, called = Call(), list[str]()
    with call.when_cancelled(lambda: called.append("early")):
        pass
    with call.when_cancelled(lambda: called.append("within")):
        call.cancel()
        call.cancel()
    with call.when_cancelled(lambda: called.append("late")):
        pass
    assert called == ["within", "late"]
