"""Throughput of a kept PlanJob answer against the health check, on one server.

    python bench/load.py [--seconds 3] [--callers 16]

One server process, callers in processes of their own on loopback, a few seconds for each of the two
methods in turns. Prints calls a second and their ratio; the goal is at least 0.5.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from memplan.v1 import planner_pb2
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub

PLAN_JOB, CHECK = "PlanJob", "Check"
ROUNDS = 3
PROCESSES = 2
FIRST_ANSWER_S = 120.0


def plan_request() -> planner_pb2.PlanJobRequest:
    """ResNet-50, placed on every GPU type of the catalog, with an accumulation plan."""
    request = planner_pb2.PlanJobRequest(global_batch_size=1024)
    request.job.model.catalog.name = "torchvision/resnet50"
    request.job.micro_batch_size = 64
    request.job.inputs.add(shape=[3, 224, 224])
    return request


def calls_in(target: str, method: str, callers: int, seconds: float) -> int:
    """Calls of a stub that `callers` threads with a channel of their own complete in `seconds`."""
    counts: list[int] = []

    def call() -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(target, options) as channel:
            answer, request = bound(channel, method)
            answer(request, timeout=FIRST_ANSWER_S)
            count, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                answer(request, timeout=FIRST_ANSWER_S)
                count += 1
            counts.append(count)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == callers, "a call failed"
    return sum(counts)


def bound(channel: grpc.Channel, method: str) -> tuple[Callable[..., Any], Message]:
    """A method of a stub, and what to call it with."""
    if method == CHECK:
        return HealthStub(channel).Check, health_pb2.HealthCheckRequest()
    stub = MemoryPlannerStub(channel)  # type: ignore[no-untyped-call]
    return stub.PlanJob, plan_request()


def rate(target: str, method: str, callers: int, seconds: float) -> float:
    """Calls a second of `callers` callers, spread over some processes."""
    spawn = multiprocessing.get_context("spawn")
    share = callers // PROCESSES
    with spawn.Pool(PROCESSES) as pool:
        arguments = [(target, method, share, seconds)] * PROCESSES
        return sum(pool.starmap(calls_in, arguments)) / seconds


@contextmanager
def server() -> Iterator[str]:
    """A `memplan-server` with its defaults in a process of its own; its address."""
    address = "127.0.0.1:50981"
    with tempfile.TemporaryDirectory() as data_dir:
        flags = [f"--listen={address}", f"--data-dir={data_dir}", "--metrics-port=0"]
        with subprocess.Popen([sys.executable, "-m", "memplan_server", *flags]) as process:
            try:
                yield address
            finally:
                process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each method and round")
    parser.add_argument("--callers", type=int, default=16)
    options = parser.parse_args()
    with server() as target:
        with grpc.insecure_channel(target) as channel:
            grpc.channel_ready_future(channel).result(FIRST_ANSWER_S)
            plan, request = bound(channel, PLAN_JOB)
            size = plan(request, timeout=FIRST_ANSWER_S).ByteSize()
        print(f"{os.cpu_count()} CPUs, {options.callers} callers, {size:,} bytes an answer")
        ratios = []
        for _ in range(ROUNDS):
            checks = rate(target, CHECK, options.callers, options.seconds)
            plans = rate(target, PLAN_JOB, options.callers, options.seconds)
            ratios.append(plans / checks)
            print(f"Check {checks:7,.0f}/s   PlanJob {plans:7,.0f}/s   ratio {ratios[-1]:.2f}")
        print(f"median ratio {sorted(ratios)[ROUNDS // 2]:.2f} (goal: at least 0.5)")


if __name__ == "__main__":
    main()
