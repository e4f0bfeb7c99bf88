"""ProfileMemory of a running server: progress, the queue, what goes wrong, other servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from serving import SOON_S, Refusal, Served, Starter, job, wait_until

from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub

CODE = grpc.StatusCode
MIB = 1 << 20


def request(name: str = "ok", batch_size: int = 3, **fields: Any) -> Any:
    limit = fields.pop("time_limit_s", None)
    made = pb.ProfileMemoryRequest(job=job(name, batch_size), **fields)
    if limit is not None:
        made.time_limit.FromMilliseconds(int(limit * 1000))
    return made


def profile(served: Served, *args: Any, **fields: Any) -> list[Any]:
    return list(served.stub.ProfileMemory(request(*args, **fields), timeout=SOON_S))


def refusal(served: Served, *args: Any, **fields: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as raised:
        profile(served, *args, **fields)
    return Refusal.of(raised.value)


def processes() -> set[int]:
    """Children of this process and theirs that run, the workers and the database left out."""
    tree: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, (name, _, rest) = int(path.parent.name), path.read_text().rpartition(") ")
        except OSError:
            continue
        if rest[0] != "Z" and not name.endswith("(postgres"):
            tree.setdefault(int(rest.split()[1]), []).append(pid)
    found, left = set(), [os.getpid()]
    while left:
        children = tree.get(left.pop(), [])
        found.update(children)
        left += children
    return {pid for pid in found if "worker_process" not in command(pid)}


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return "worker_process"


@contextmanager
def running(served: Served, *args: Any, **fields: Any) -> Iterator[Any]:
    """A profile that is at its work."""
    stream = served.stub.ProfileMemory(request(*args, **fields), timeout=SOON_S)
    try:
        wait_for_stage(stream, pb.PROFILE_STAGE_BUILDING)
        yield stream
    finally:
        stream.cancel()


def wait_for_stage(stream: Any, stage: int) -> Any:
    return next(event for event in stream if event.progress.stage == stage)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gate"
    monkeypatch.setenv("FAKE_TASKS_GATE", str(path))
    return path


def test_a_profile_is_streamed_from_building_to_done(fake: Served) -> None:
    *progress, last = profile(fake, step_count=2, warmup_step_count=1)
    stages = [event.progress.stage for event in progress]
    assert stages == sorted(stages)
    assert stages[0] == pb.PROFILE_STAGE_BUILDING
    assert [(e.progress.step, e.progress.step_count) for e in progress[1:]] == [
        (0, 3),
        (1, 3),
        (2, 3),
        (3, 3),
    ]
    assert progress[-1].progress.peak_allocated_bytes == 3 * MIB
    found = last.profile
    assert (found.peak_allocated_bytes, found.peak_reserved_bytes) == (3 * MIB, 6 * MIB)
    assert (found.warmup_step_count, found.step_count, found.micro_batch_size) == (1, 2, 3)
    assert found.device_type == pb.DEVICE_TYPE_CPU
    assert found.device_name
    assert found.host
    assert found.create_time.seconds > 0
    assert found.job.precision  # defaults are written out
    assert len(found.job_digest) == 64
    assert not found.HasField("step_time")  # nothing is said of times on a GPU
    assert fake.metric('memplan_profiles_total{outcome="done"}') == 1
    assert fake.metric("memplan_profile_duration_seconds_count") == 1


def test_the_digest_is_the_same_at_every_batch_size(fake: Served) -> None:
    digests = {profile(fake, "ok", size)[-1].profile.job_digest for size in (1, 2)}
    assert len(digests) == 1


def test_wrong_requests_are_refused_at_once(fake: Served) -> None:
    wrong = refusal(fake, step_count=101, warmup_step_count=-1, memory_limit_bytes=-1)
    assert wrong.code is CODE.INVALID_ARGUMENT
    assert wrong.fields == {"step_count", "warmup_step_count", "memory_limit_bytes"}
    assert refusal(fake, "nothing").code is CODE.NOT_FOUND
    assert refusal(fake, gpu_type="no-such-gpu").code is CODE.NOT_FOUND
    assert refusal(fake, time_limit_s=601).fields == {"time_limit"}
    assert refusal(fake, time_limit_s=0).fields == {"time_limit"}
    on_the_cpu = refusal(fake, find_batch_size=True, device_type=pb.DEVICE_TYPE_CPU)
    assert on_the_cpu.fields == {"find_batch_size"}


@pytest.mark.parametrize(
    "fields",
    [
        {"device_type": pb.DEVICE_TYPE_CUDA},
        {"gpu_type": "nvidia-h100-80gb"},
        {"find_batch_size": True},
    ],
)
def test_without_a_gpu_what_needs_one_is_refused(fake: Served, fields: dict[str, Any]) -> None:
    assert refusal(fake, **fields).code is CODE.FAILED_PRECONDITION


@pytest.mark.parametrize("name", ["crash", "kill"])
def test_a_process_that_dies_costs_its_profile_only(fake: Served, name: str) -> None:
    found = refusal(fake, name)
    assert found.code is CODE.ABORTED
    assert ("exit code 3" if name == "crash" else "SIGSEGV") in found.message
    assert profile(fake)[-1].HasField("profile")
    assert fake.metric('memplan_profiles_total{outcome="crashed"}') == 1


def test_a_process_killed_from_outside_is_told(fake: Served) -> None:
    before = processes()
    with running(fake, "hang") as stream:
        leader = min(processes() - before)
        os.kill(leader, signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as raised:
            list(stream)
    assert Refusal.of(raised.value).code is CODE.ABORTED
    wait_until(lambda: processes() <= before)


def test_errors_of_the_job_and_defects_are_told_apart(fake: Served) -> None:
    found = refusal(fake, "build-error")
    assert found.code is CODE.INVALID_ARGUMENT
    assert found.fields == {"job.model"}
    defect = refusal(fake, "defect")
    assert defect.code is CODE.INTERNAL
    assert "secret" not in defect.message


def test_the_time_limit_stops_the_whole_process_group(fake: Served) -> None:
    before = processes()
    found = refusal(fake, "hang", time_limit_s=1.5)
    assert found.code is CODE.DEADLINE_EXCEEDED
    assert "1.5 s" in found.message
    wait_until(lambda: processes() <= before)
    assert fake.metric('memplan_profiles_total{outcome="time_limit"}') == 1


def test_the_callers_deadline_stops_it(fake: Served) -> None:
    before = processes()
    with pytest.raises(grpc.RpcError) as raised:
        list(fake.stub.ProfileMemory(request("hang"), timeout=1.5))
    assert Refusal.of(raised.value).code is CODE.DEADLINE_EXCEEDED
    wait_until(lambda: processes() <= before)


def test_a_caller_that_goes_away_cancels(fake: Served) -> None:
    before = processes()
    with running(fake, "hang"):
        assert processes() > before
    wait_until(lambda: processes() <= before)
    fake.wait_for('memplan_profiles_total{outcome="cancelled"}')
    assert profile(fake)[-1].HasField("profile")


def test_one_at_a_time_and_the_others_hear_their_position(fake: Served, gate: Path) -> None:
    with running(fake, "gated", time_limit_s=100) as first:
        second = fake.stub.ProfileMemory(request("ok"), timeout=SOON_S)
        waiting = next(second).progress
        assert waiting.stage == pb.PROFILE_STAGE_QUEUED
        assert waiting.queue_position == 1
        assert 0 < waiting.expected_wait.seconds <= 100
        assert fake.metric("memplan_profiles_queued") == 1
        gate.touch()
        assert list(first)[-1].HasField("profile")
        assert list(second)[-1].HasField("profile")


def test_two_clients_at_once_both_get_their_profile(fake: Served) -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda n: results.append(profile(fake, "ok", n)[-1]), args=(size,))
        for size in (4, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert {found.profile.micro_batch_size for found in results} == {4, 5}


def test_a_full_queue_says_when_to_come_back(start: Starter) -> None:
    served = start(profile_queue_length=1)
    with running(served, "hang", time_limit_s=100):
        waiting = served.stub.ProfileMemory(request("hang"), timeout=SOON_S)
        assert next(waiting).progress.queue_position == 1
        found = refusal(served)
        assert found.code is CODE.RESOURCE_EXHAUSTED
        assert found.details["RetryInfo"].retry_delay.seconds > 30
        waiting.cancel()
        served.wait_for("memplan_profiles_queued", 0)


def test_who_leaves_the_queue_makes_room(start: Starter) -> None:
    served = start(profile_queue_length=1)
    with running(served, "hang"):
        for _ in range(3):
            waiting = served.stub.ProfileMemory(request(), timeout=SOON_S)
            assert next(waiting).progress.stage == pb.PROFILE_STAGE_QUEUED
            waiting.cancel()
            served.wait_for("memplan_profiles_queued", 0)


def test_a_server_that_stops_leaves_no_process(start: Starter) -> None:
    before = processes()
    served = start()
    stream = served.stub.ProfileMemory(request("hang"), timeout=SOON_S)
    wait_for_stage(stream, pb.PROFILE_STAGE_BUILDING)
    served.server.stop()
    with pytest.raises(grpc.RpcError):
        list(stream)
    wait_until(lambda: processes() <= before)


def test_many_profiles_leak_nothing(fake: Served) -> None:
    before = processes()
    profile(fake)
    wait_until(lambda: processes() <= before)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(15):
        profile(fake)
    wait_until(lambda: processes() <= before)
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    assert threading.active_count() <= threads + 2


SERVER = """
import sys, threading
from pathlib import Path
from memplan_server.app import serve
from memplan_server.settings import Settings
settings = Settings(listen="127.0.0.1:0", workers=1, data_dir=Path(sys.argv[1]))
server = serve(settings, tasks_module="fake_tasks", measure="fake_measure:measure")
print(server.port, flush=True)
sys.stdin.read()
"""


@contextmanager
def server_process(folder: Path) -> Iterator[tuple[Any, str]]:
    """A server in a process of its own, and its address."""
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def test_profiles_are_left_to_profilers(start: Starter, data_dir: Path) -> None:
    profiler = start(data_dir=data_dir / "profiler")
    front = start(profiler=(f"127.0.0.1:{profiler.server.port}",))
    assert profile(front)[-1].profile.peak_allocated_bytes == 3 * MIB
    assert profiler.metric('memplan_profiles_total{outcome="done"}') == 1
    found = refusal(front, "build-error")
    assert found.code is CODE.INVALID_ARGUMENT
    assert found.fields == {"job.model"}
    assert refusal(front, "crash").code is CODE.ABORTED
    missing = refusal(front, device_type=pb.DEVICE_TYPE_CUDA)
    assert missing.code is CODE.FAILED_PRECONDITION


def test_two_servers_that_name_each_other_do_not_go_round_in_circles(
    start: Starter, data_dir: Path
) -> None:
    first = start(data_dir=data_dir / "first")
    second = start(data_dir=data_dir / "second", profiler=(f"127.0.0.1:{first.server.port}",))
    third = start(data_dir=data_dir / "third", profiler=(f"127.0.0.1:{second.server.port}",))
    assert profile(third)[-1].HasField("profile")
    assert first.metric('memplan_profiles_total{outcome="done"}') == 0
    assert second.metric('memplan_profiles_total{outcome="done"}') == 1


def test_without_any_profiler_it_is_unavailable(start: Starter) -> None:
    front = start(profiler=("127.0.0.1:1",))
    found = refusal(front)
    assert found.code is CODE.UNAVAILABLE
    assert "127.0.0.1:1" in found.message


def test_a_busy_profiler_is_passed_over(start: Starter, data_dir: Path) -> None:
    busy = start(data_dir=data_dir / "busy", profile_queue_length=1)
    idle = start(data_dir=data_dir / "idle")
    with running(busy, "hang"):
        waiting = busy.stub.ProfileMemory(request("hang"), timeout=SOON_S)
        next(waiting)
        addresses = (f"127.0.0.1:{busy.server.port}", f"127.0.0.1:{idle.server.port}")
        front = start(profiler=addresses)
        for _ in range(2):
            assert profile(front)[-1].HasField("profile")
        alone = start(data_dir=data_dir / "alone", profiler=addresses[:1])
        found = refusal(alone)
        assert found.code is CODE.RESOURCE_EXHAUSTED
        assert "RetryInfo" in found.details
        waiting.cancel()


def test_a_profiler_killed_in_the_middle_is_replaced(
    start: Starter, data_dir: Path, gate: Path
) -> None:
    with (
        server_process(data_dir / "one") as (one, address_one),
        server_process(data_dir / "two") as (two, address_two),
    ):
        front = start(profiler=(address_one, address_two))
        by_address = {address_one: one, address_two: two}
        with running(front, "gated") as stream:
            at_work = at_work_of(by_address)
            by_address[at_work].kill()
            event = wait_for_stage(stream, pb.PROFILE_STAGE_BUILDING)
            assert event.progress.micro_batch_size == 3
            gate.touch()
            assert list(stream)[-1].HasField("profile")
        wait_until(lambda: not any("child_process" in command(pid) for pid in processes()))


def at_work_of(servers: dict[str, Any]) -> str:
    """The server that has a process which measures: the only one that cannot take another."""
    for address in servers:
        with grpc.insecure_channel(address) as channel:
            stream = MemoryPlannerStub(channel).ProfileMemory(request("ok"), timeout=SOON_S)
            first = next(stream).progress.stage
            stream.cancel()
        if first == pb.PROFILE_STAGE_QUEUED:
            return address
    raise AssertionError("none is at work")


def test_a_caller_that_goes_away_cancels_at_the_profiler(start: Starter, data_dir: Path) -> None:
    profiler = start(data_dir=data_dir / "profiler")
    front = start(profiler=(f"127.0.0.1:{profiler.server.port}",))
    before = processes()
    with running(front, "hang"):
        assert processes() > before
    wait_until(lambda: processes() <= before)
    assert profile(front)[-1].HasField("profile")
