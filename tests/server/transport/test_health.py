"""Health checks of many clients at once: each client of a cluster keeps a stream of them open."""

from __future__ import annotations

import contextlib
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import SOON_S, Starter, estimate

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_open_health_checks_hold_no_thread(start: Starter) -> None:
    served = start(profile_queue_length=1)
    most = 1 + 16 + 16  # the threads there are for streams to clients
    stub = health_pb2_grpc.HealthStub(served.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=SOON_S) for _ in range(3 * most)]
    assert {next(watch).status for watch in watches} == {SERVING}
    assert served.call("EstimateMemory", estimate("ok")).estimate.device_used_bytes > 0
    served.server.stop(0)
    for watch in watches:
        assert next(watch).status == NOT_SERVING
        with contextlib.suppress(grpc.RpcError):
            watch.cancel()


def test_calls_are_taken_for_a_while_after_health_fails(start: Starter) -> None:
    served = start()
    served.call("EstimateMemory", estimate("ok"))
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=SOON_S
    )
    assert next(watch).status == SERVING
    began = time.monotonic()
    stopping = threading.Thread(target=lambda: served.server.stop(SOON_S, delay=1.0))
    stopping.start()
    assert next(watch).status == NOT_SERVING
    watch.cancel()
    served.call("EstimateMemory", estimate("ok", 2))
    assert time.monotonic() - began < 1.0  # else it says nothing: this machine is too slow
    stopping.join()
    assert time.monotonic() - began >= 1.0
