"""Malformed, hostile and absurd jobs get a precise status, and the server goes on serving.

Over 200 requests a run. Those that pass validation are really built and executed by a worker.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from hostile import chosen, convnet, messages, mlp, named, spoilt
from hostile_graphs import GOOD as GOOD_GRAPHS
from hostile_graphs import chosen_graphs, perceptron
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memplan.v1 import planner_pb2 as pb
from memplan_server.app import RunningServer, serve
from memplan_server.settings import Settings

CODE = grpc.StatusCode
PRECISE = {
    CODE.OK,
    CODE.INVALID_ARGUMENT,
    CODE.NOT_FOUND,
    CODE.RESOURCE_EXHAUSTED,
    CODE.DEADLINE_EXCEEDED,
}
GOOD = {  # absurd, and yet there is an answer
    "largest batch",
    "huge features",
    "huge input",
    "scalar image",
    "no classes",
    "nested 15 deep",
}
ANSWERS = {
    "2^40 elements": {CODE.RESOURCE_EXHAUSTED},
    "huge image": {CODE.RESOURCE_EXHAUSTED},
    "unknown library": {CODE.NOT_FOUND},
    "unknown model": {CODE.NOT_FOUND},
    "private function": {CODE.NOT_FOUND},
    "not a model": {CODE.NOT_FOUND},
    "negative layers": {CODE.OK, CODE.INVALID_ARGUMENT},
    "2,000 layers": {CODE.OK, CODE.DEADLINE_EXCEEDED},
    "2^40 pieces": {CODE.RESOURCE_EXHAUSTED},
    "2^40 slices": {CODE.RESOURCE_EXHAUSTED},
    "2^40 chunks": {CODE.RESOURCE_EXHAUSTED},
    "strides beyond the storage": {CODE.RESOURCE_EXHAUSTED},
    "graph: an input of 2^40 a sample": {CODE.RESOURCE_EXHAUSTED},
    # the shape functions of PyTorch before 2.12 do not look at these
    "a negative stride": {CODE.OK, CODE.INVALID_ARGUMENT},
    "indices that are no indices": {CODE.OK, CODE.INVALID_ARGUMENT},
} | {name: {CODE.OK} for name in (*GOOD, *GOOD_GRAPHS)}
"""Statuses of chosen requests other than INVALID_ARGUMENT."""
ANY_MESSAGE, SPOILT, RANDOM = 80, 60, 80
LIMIT_S = 15.0
PATIENCE_S = 60.0
# A library's file is named on purpose: "(AlexNet.forward of torchvision, alexnet.py, line 48)".
LEAKS = re.compile(
    r"Traceback|File \"|site-packages|(?<!, )\b\w+\.py\b|/etc/passwd.*exist|object at 0x|"
    + "|".join(re.escape(str(path)) for path in (sys.prefix, Path(__file__).parents[2]))
)
FUZZ = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Target:
    """A server with tight limits."""

    def __init__(self, server: RunningServer, channel: grpc.Channel) -> None:
        self.server = server
        self.channel = channel
        self._good = 0

    def send(self, data: bytes, method: str = "EstimateMemory") -> Any:
        """The status of a call, after it was looked at for leaks."""
        call = self.channel.unary_unary(f"/memplan.v1.MemoryPlanner/{method}")
        try:
            call(data, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            answer: Any = error
            status = rpc_status.from_call(answer)
            said = f"{answer.details()} {status.details if status else ''}"
            assert answer.details()
            assert not LEAKS.search(said), said
            return answer.code()
        return CODE.OK

    def is_serving(self) -> bool:
        """Whether it is healthy and a worker of it answers a good job that is new to it."""
        self._good += 1
        stub = health_pb2_grpc.HealthStub(self.channel)
        health = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        good = self.send(mlp(self._good).SerializeToString()) is CODE.OK
        return good and bool(health.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    server = serve(
        Settings(
            listen="127.0.0.1:0",
            data_dir=tmp_path_factory.mktemp("data"),
            workers=1,
            job_time_limit=LIMIT_S,
            worker_memory_limit=2 << 30,
        )
    )
    options = (("grpc.max_send_message_length", -1),)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        made = Target(server, channel)
        assert made.is_serving()
        yield made
        assert made.is_serving()
    server.stop()


CHOSEN = chosen() | chosen_graphs()


@pytest.mark.parametrize("name", CHOSEN)
def test_chosen_requests(target: Target, name: str) -> None:
    assert target.send(CHOSEN[name]) in ANSWERS.get(name, {CODE.INVALID_ARGUMENT})


def test_there_are_enough_of_them() -> None:
    assert set(ANSWERS) <= set(CHOSEN)
    assert len(CHOSEN) + ANY_MESSAGE + SPOILT + RANDOM >= 200


METHODS = {
    "EstimateMemory": pb.EstimateMemoryRequest,
    "RecommendBatchSize": pb.RecommendBatchSizeRequest,
    "PlanAccumulation": pb.PlanAccumulationRequest,
    "PlanJob": pb.PlanJobRequest,
    "ListGpuTypes": pb.ListGpuTypesRequest,
    "ListModels": pb.ListModelsRequest,
    "GetProfile": pb.GetProfileRequest,
    "ListProfiles": pb.ListProfilesRequest,
}


@settings(FUZZ, max_examples=ANY_MESSAGE)
@given(
    request=st.sampled_from(sorted(METHODS)).flatmap(
        lambda m: st.tuples(st.just(m), messages(METHODS[m].DESCRIPTOR))
    )
)
def test_any_message_of_the_contract(target: Target, request: tuple[str, Message]) -> None:
    method, message = request
    assert target.send(message.SerializeToString(), method) in PRECISE


@settings(FUZZ, max_examples=SPOILT)
@given(request=st.sampled_from([mlp(), convnet(), perceptron()]).flatmap(spoilt))
def test_good_jobs_with_something_wrong(target: Target, request: Message) -> None:
    assert target.send(request.SerializeToString()) in PRECISE


def test_random_bytes(target: Target) -> None:
    rng = random.Random(0)
    good = mlp().SerializeToString()
    for _ in range(RANDOM // 2):
        at = rng.randrange(len(good))
        for data in (rng.randbytes(rng.randrange(200)), good[:at] + rng.randbytes(3) + good[at:]):
            assert target.send(data) in PRECISE


def test_100_megabytes(target: Target) -> None:
    assert target.send(bytes(100 << 20)) is CODE.RESOURCE_EXHAUSTED


def worker_pids() -> list[int]:
    """Worker processes that this process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = path.with_name("cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and b"memplan_server.worker_process" in command:
            found.append(int(path.parent.name))
    return found


def test_killed_workers(target: Target) -> None:
    call = target.channel.unary_unary("/memplan.v1.MemoryPlanner/EstimateMemory")
    slow = named("torchvision/densenet201")
    killed = 0
    for attempt in range(50):  # a kill may come too early or too late to be noticed
        slow.job.optimizer.momentum = attempt / 100  # none is found in a cache
        waiting = call.future(slow.SerializeToString(), timeout=PATIENCE_S)
        time.sleep(0.1)
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert waiting.code() in {CODE.INTERNAL, CODE.OK}
        if waiting.code() is CODE.INTERNAL:
            assert not LEAKS.search(waiting.details())
            killed += 1
        if killed == 3:
            break
    assert killed == 3
    assert target.is_serving()


def test_cancelled_calls(target: Target) -> None:
    call = target.channel.unary_unary("/memplan.v1.MemoryPlanner/EstimateMemory")
    for n in range(10):
        request = named("torchvision/densenet201")
        request.job.optimizer.weight_decay = n + 1
        waiting = call.future(request.SerializeToString(), timeout=PATIENCE_S)
        time.sleep(0.05 * (n % 3))
        waiting.cancel()
    assert target.is_serving()


def test_impatient_calls(target: Target) -> None:
    call = target.channel.unary_unary("/memplan.v1.MemoryPlanner/EstimateMemory")
    for n in range(10):
        request = named("torchvision/densenet201")
        request.job.optimizer.weight_decay = n + 100
        with pytest.raises(grpc.RpcError) as raised:
            call(request.SerializeToString(), timeout=0.02)
        assert raised.value.code() is CODE.DEADLINE_EXCEEDED
    assert target.is_serving()
