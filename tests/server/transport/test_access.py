"""A server with tenants: who gets in, what each may, and how it is told so."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serving import SOON_S, Refusal, Served, Starter, estimate, job, wait_until

from memplan import Client, LimitExceededError, TrainingJob
from memplan.errors import AccessDeniedError
from memplan.types import CatalogModel, Model
from memplan.v1 import planner_pb2 as pb

CODE = grpc.StatusCode
GPUS = pb.ListGpuTypesRequest()


def section(name: str, **limits: int) -> str:
    """A tenant whose token is its name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    lines = [f"[{name}]", f'tokens = [{{ sha256 = "{digest}" }}]']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in limits.items()), ""])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tenants.toml"
    path.write_text(
        section("free")
        + section("slow", requests_per_minute=3)
        + section("narrow", concurrent_requests=2)
        + section("planner", measuring_seconds_per_hour=0)
        + section("measurer", measuring_seconds_per_hour=70)
    )
    return path


@pytest.fixture
def guarded(start: Starter, file: Path) -> Served:
    return start(tenants=file)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def call(served: Served, token: str, method: str = "ListGpuTypes", request: Any = GPUS) -> Any:
    answer = getattr(served.stub, method)(request, timeout=SOON_S, metadata=bearer(token))
    return list(answer) if method == "ProfileMemory" else answer


def refusal(
    served: Served, token: str, method: str = "ListGpuTypes", request: Any = GPUS
) -> Refusal:
    with pytest.raises(grpc.RpcError) as raised:
        call(served, token, method, request)
    return Refusal.of(raised.value)


def test_strangers_stay_outside(guarded: Served) -> None:
    for metadata, reason in (
        ((), "NO_TOKEN"),
        ((("authorization", "Basic ZnJlZQ=="),), "NO_TOKEN"),
        ((("authorization", "free"),), "NO_TOKEN"),
        (bearer(""), "UNKNOWN_TOKEN"),
        (bearer("stranger"), "UNKNOWN_TOKEN"),
        (bearer(hashlib.sha256(b"free").hexdigest()), "UNKNOWN_TOKEN"),
    ):
        profile = guarded.stub.ProfileMemory(pb.ProfileMemoryRequest(), metadata=metadata)
        with pytest.raises(grpc.RpcError) as streamed:
            next(profile)
        with pytest.raises(grpc.RpcError) as raised:
            guarded.stub.ListGpuTypes(GPUS, timeout=SOON_S, metadata=metadata)
        for found in map(Refusal.of, (raised.value, streamed.value)):
            assert found.code is CODE.UNAUTHENTICATED
            assert found.details["ErrorInfo"].reason == reason
            assert "stranger" not in found.message
    assert "tenant=" not in guarded.metrics()


def test_an_expired_token_is_told(guarded: Served, file: Path) -> None:
    assert call(guarded, "free").gpu_types
    text = file.read_text().replace('" }]', '", expires = 2026-01-01T00:00:00Z }]', 1)
    file.write_text(text)
    found = refusal(guarded, "free")
    assert found.code is CODE.UNAUTHENTICATED
    assert found.details["ErrorInfo"].reason == "TOKEN_EXPIRED"
    assert "free expired at 2026-01-01 00:00 UTC" in found.message
    for scheme in ("bearer", "BEARER"):
        metadata = (("authorization", f"{scheme} slow"),)
        assert guarded.stub.ListGpuTypes(GPUS, timeout=SOON_S, metadata=metadata).gpu_types


def test_health_and_reflection_are_for_all(guarded: Served) -> None:
    assert guarded.health() == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=SOON_S)
    assert "memplan.v1.MemoryPlanner" in str(answer)


def test_requests_in_a_minute(guarded: Served) -> None:
    for _ in range(3):
        call(guarded, "slow")
    found = refusal(guarded, "slow")
    assert found.code is CODE.RESOURCE_EXHAUSTED
    assert found.details["ErrorInfo"].reason == "QUOTA_EXCEEDED"
    (violation,) = found.details["QuotaFailure"].violations
    assert violation.subject == "slow/requests_per_minute"
    assert "it may make 3" in violation.description
    assert 50 < found.details["RetryInfo"].retry_delay.seconds < 60
    call(guarded, "free")
    assert guarded.metric('memplan_tenant_requests_total{tenant="slow"}') == 3
    refused = 'memplan_tenant_refusals_total{quota="requests_per_minute",tenant="slow"}'
    assert guarded.metric(refused) == 1


def test_requests_at_once(guarded: Served) -> None:
    hanging = [
        guarded.stub.EstimateMemory.future(
            estimate("hang", n), timeout=SOON_S, metadata=bearer("narrow")
        )
        for n in (1, 2)
    ]
    wait_until(lambda: guarded.metric('memplan_tenant_requests_total{tenant="narrow"}') == 2)
    found = refusal(guarded, "narrow")
    assert found.code is CODE.RESOURCE_EXHAUSTED
    (violation,) = found.details["QuotaFailure"].violations
    assert violation.subject == "narrow/concurrent_requests"
    assert found.details["RetryInfo"].retry_delay.seconds == 1
    call(guarded, "free")
    for one in hanging:
        one.cancel()
    wait_until(lambda: _gets_in(guarded, "narrow"))


def _gets_in(served: Served, token: str) -> bool:
    try:
        call(served, token)
    except grpc.RpcError:
        return False
    return True


def test_quotas_hold_under_load(start: Starter, file: Path) -> None:
    file.write_text(section("busy", requests_per_minute=100, concurrent_requests=4))
    served = start(tenants=file)
    found: Counter[str] = Counter()
    lock = threading.Lock()

    def ask() -> None:
        for _ in range(40):
            try:
                call(served, "busy")
                outcome = "OK"
            except grpc.RpcError as error:
                outcome = Refusal.of(error).details["QuotaFailure"].violations[0].subject
            with lock:
                found[outcome] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found.values()) == 320
    assert found["OK"] == 100
    assert set(found) <= {"OK", "busy/requests_per_minute", "busy/concurrent_requests"}


def test_who_may_not_measure_still_plans(guarded: Served) -> None:
    found = refusal(guarded, "planner", "ProfileMemory", pb.ProfileMemoryRequest(job=job("ok")))
    assert found.code is CODE.PERMISSION_DENIED
    assert found.details["ErrorInfo"].reason == "NOT_ALLOWED"
    assert "planner may not measure" in found.message
    request = pb.PlanJobRequest(job=job("ok"))
    request.gpus.add(gpu_type="nvidia-t4")
    request.measurement_budget.FromSeconds(10)
    plan = call(guarded, "planner", "PlanJob", request)
    assert plan.placements
    assert "may not measure" in plan.measurement_notes[0]


def test_measuring_within_an_hour(guarded: Served) -> None:
    request = pb.ProfileMemoryRequest(job=job("ok"))
    request.time_limit.FromSeconds(69)
    assert call(guarded, "measurer", "ProfileMemory", request)[-1].profile.micro_batch_size == 1
    took = guarded.metric('memplan_tenant_measuring_seconds_total{tenant="measurer"}')
    assert 0 < took < SOON_S
    request.time_limit.FromSeconds(70)
    found = refusal(guarded, "measurer", "ProfileMemory", request)
    assert found.code is CODE.RESOURCE_EXHAUSTED
    (violation,) = found.details["QuotaFailure"].violations
    assert violation.subject == "measurer/measuring_seconds_per_hour"
    assert 3500 < found.details["RetryInfo"].retry_delay.seconds <= 3600


def test_profilers_with_tenants(start: Starter, file: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("stranger")
    profiler = start(tenants=file, data_dir=tmp_path / "profiler")
    front = start(profiler=(f"127.0.0.1:{profiler.server.port}",), profiler_token_file=token)
    request = pb.ProfileMemoryRequest(job=job("ok"))
    with pytest.raises(grpc.RpcError) as raised:
        list(front.stub.ProfileMemory(request, timeout=SOON_S))
    assert raised.value.code() is CODE.UNAUTHENTICATED
    token.write_text("free")
    *_, last = front.stub.ProfileMemory(request, timeout=SOON_S)
    assert last.profile.micro_batch_size == 1
    assert profiler.metric('memplan_tenant_requests_total{tenant="free"}') >= 1


def test_the_client_says_it_in_its_own_words(guarded: Served, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("slow")
    target = f"127.0.0.1:{guarded.server.port}"
    names = TrainingJob(model=Model(catalog=CatalogModel(name="fake/ok")), micro_batch_size=1)
    with Client(target, token_file=token, plaintext_token=True) as client:
        for _ in range(3):
            client.estimate_memory(names)
        with pytest.raises(LimitExceededError) as limited:
            client.estimate_memory(names)
        token.write_text("stranger")
        with pytest.raises(AccessDeniedError) as denied:
            client.estimate_memory(names)
    assert 50 < (limited.value.retry_after or 0) < 60
    assert denied.value.code == "UNAUTHENTICATED"
    with Client(target) as client, pytest.raises(AccessDeniedError, match="MEMPLAN_TOKEN_FILE"):
        client.estimate_memory(names)


def test_a_missing_file_is_named(start: Starter, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.toml"):
        start(tenants=tmp_path / "none.toml")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memplan_server", *arguments],
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )


@pytest.mark.slow  # processes that start
def test_the_command_with_tenants(start: Starter, tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    made = run("token", "team-a", "--days=1")
    path.write_text(made.stdout + "requests_per_minute = 1\n")
    served = start(tenants=path)
    token = made.stderr.split()[-1]
    assert call(served, token).gpu_types
    assert refusal(served, token).code is CODE.RESOURCE_EXHAUSTED
    path.write_text("[a]\nspeed = 1")
    ended = run(f"--tenants={path}", f"--data-dir={tmp_path}", "--listen=127.0.0.1:0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("memplan-server: ")
    assert "unknown 'speed'" in ended.stderr
