"""What the tests of a running server have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan_server.app import RunningServer

SOON_S = 60.0
"""Longest time for anything to happen that does happen, on a machine as busy as may be."""


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until it holds; fails when that is not soon."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@dataclass
class Served:
    """A running server, a channel and a stub."""

    server: RunningServer
    channel: grpc.Channel

    @property
    def stub(self) -> MemoryPlannerStub:
        return MemoryPlannerStub(self.channel)

    def health(self, service: str = "") -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        stub = health_pb2_grpc.HealthStub(self.channel)
        return int(stub.Check(request, timeout=SOON_S).status)

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.server.metrics_port}/metrics"
        with urlopen(url) as answer:
            return str(answer.read().decode())

    def metric(self, sample: str) -> float:
        """The value of a sample as the text format names it; 0 where there is none yet."""
        lines = (line.rpartition(" ") for line in self.metrics().splitlines())
        return next((float(value) for name, _, value in lines if name == sample), 0.0)

    def wait_for(self, sample: str, value: float = 1) -> None:
        """Wait until a sample has a value."""
        wait_until(lambda: self.metric(sample) == value)

    def call(self, method: str, request: object) -> Any:
        return getattr(self.stub, method)(request, timeout=SOON_S)

    def refusal(self, method: str, request: object) -> Refusal:
        with pytest.raises(grpc.RpcError) as raised:
            self.call(method, request)
        return Refusal.of(raised.value)


@dataclass(frozen=True)
class Refusal:
    """A status other than OK with its details by type name."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Any]

    @classmethod
    def of(cls, error: Any) -> Refusal:
        details = {}
        status = rpc_status.from_call(error)
        for packed in status.details if status is not None else ():
            name = packed.type_url.rpartition(".")[2]
            detail = getattr(error_details_pb2, name)()
            assert packed.Unpack(detail)
            details[name] = detail
        return cls(error.code(), error.details(), details)

    @property
    def fields(self) -> set[str]:
        """Paths of the violations."""
        return {violation.field for violation in self.details["BadRequest"].field_violations}


def job(name: str, batch_size: int = 1) -> Any:
    """A job of a model of `fake_tasks`."""
    request = pb.EstimateMemoryRequest()
    request.job.model.catalog.name = f"fake/{name}"
    request.job.micro_batch_size = batch_size
    return request.job


def estimate(name: str, batch_size: int = 1) -> Any:
    return pb.EstimateMemoryRequest(job=job(name, batch_size))


Starter = Callable[..., Served]
