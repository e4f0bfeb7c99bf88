"""Statuses and their details, over real gRPC, whatever happens in the workers."""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_tasks import gate
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serving import SOON_S, Refusal, Served, Starter, estimate, job

from memplan.v1 import gpus_pb2
from memplan.v1 import planner_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING
PATHS_AND_TRACES = re.compile(r"Traceback|File \"|\.py|/secret|/[a-z]+/[a-z]+/[a-z]+/")


def plan(name: str = "ok", *gpu_types: str) -> Any:
    gpus = [gpus_pb2.GpuTarget(gpu_type=g) for g in gpu_types or ("nvidia-t4", "nvidia-h200")]
    return pb.PlanJobRequest(job=job(name, 8), gpus=gpus, global_batch_size=64)


def test_every_method_answers(fake: Served) -> None:
    assert fake.call("EstimateMemory", estimate("ok")).estimate.device_used_bytes > 0
    planned = fake.call("PlanJob", plan())
    assert [p.gpu.gpu_type for p in planned.placements] == ["nvidia-t4", "nvidia-h200"]
    assert planned.accumulation.feasible
    recommended = fake.call("RecommendBatchSize", pb.RecommendBatchSizeRequest(job=job("ok")))
    assert all(r.max_batch_size > 0 for r in recommended.batch_sizes)
    accumulation = pb.PlanAccumulationRequest(job=job("ok"), global_batch_size=127)
    accumulation.gpu.gpu_type = "NVIDIA A100-SXM4-40GB"
    answer = fake.call("PlanAccumulation", accumulation).accumulation
    assert answer.feasible
    assert answer.gpu.gpu_type == "nvidia-a100-40gb"
    assert fake.call("ListModels", pb.ListModelsRequest()).models[0].name == "fake/attention"
    assert fake.call("ListGpuTypes", pb.ListGpuTypesRequest()).gpu_types


def test_a_plan_is_put_into_the_words_of_a_scheduler(fake: Served) -> None:
    request = plan()
    assert fake.call("PlanJob", request).scheduler_request == ""
    request.scheduler = pb.SCHEDULER_SLURM
    answer = fake.call("PlanJob", request)
    assert '#SBATCH --constraint="nvidia-t4"\n' in answer.scheduler_request
    micro = answer.accumulation.micro_batch_size
    assert f"export MEMPLAN_MICRO_BATCH_SIZE={micro}\n" in answer.scheduler_request
    request.global_batch_size = 0
    text = fake.call("PlanJob", request).scheduler_request
    assert '#SBATCH --constraint="nvidia-t4|nvidia-h200"\n' in text


def test_a_gpu_type_that_was_not_asked_for_is_assumed(fake: Served) -> None:
    got = fake.call("EstimateMemory", estimate("ok")).estimate
    assert got.gpu_type == "nvidia-a100-80gb"
    assert any("nvidia-a100-80gb" in assumption for assumption in got.assumptions)


def test_the_default_targets_are_the_catalog(fake: Served) -> None:
    planned = fake.call("PlanJob", pb.PlanJobRequest(job=job("ok")))
    assert not planned.HasField("accumulation")
    names = [p.gpu.gpu_type for p in planned.placements]
    assert "nvidia-t4" in names
    assert not any("-mig-" in name for name in names)
    recommended = fake.call("RecommendBatchSize", pb.RecommendBatchSizeRequest(job=job("ok")))
    assert any("-mig-" in r.gpu.gpu_type for r in recommended.batch_sizes)


def test_kept_answers_equal_fresh_ones(start: Starter) -> None:
    first = start()
    fresh = first.call("PlanJob", plan())
    assert first.call("PlanJob", plan()) == fresh
    assert first.metric('memplan_cache_requests_total{cache="answer",result="hit"}') == 1
    first.server.stop()
    again = start()
    assert again.call("PlanJob", plan()) == fresh
    assert again.metric('memplan_cache_requests_total{cache="timeline_store",result="hit"}') > 0
    assert again.metric('memplan_workers{state="stopped"}') == 1  # none was needed


def test_bounds_have_the_confidence_asked_for(fake: Served) -> None:
    request, upper = plan(), {}
    for asked, held in ((0.0, 0.99), (0.99, 0.99), (0.93, 0.95), (0.5, 0.9)):
        request.confidence = asked
        found = fake.call("PlanJob", request)
        answers = (found.estimate, *found.batch_sizes, found.accumulation, *found.placements)
        assert {answer.confidence for answer in answers} == {held}
        alone = pb.EstimateMemoryRequest(job=request.job, gpu_type="nvidia-t4", confidence=asked)
        assert fake.call("EstimateMemory", alone).estimate == found.estimate
        upper[asked] = found.estimate.upper_bound_bytes
    assert upper[0.0] == upper[0.99] >= upper[0.93] >= upper[0.5]
    others = (
        ("RecommendBatchSize", pb.RecommendBatchSizeRequest(job=job("ok"), confidence=0.9)),
        (
            "PlanAccumulation",
            pb.PlanAccumulationRequest(
                job=job("ok"), gpu=request.gpus[0], global_batch_size=64, confidence=0.9
            ),
        ),
    )
    for method, other in others:
        answer = fake.call(method, other)
        found = getattr(answer, "batch_sizes", None) or [answer.accumulation]
        assert {one.confidence for one in found} == {0.9}
        other.confidence = 0.995
        assert fake.refusal(method, other).fields == {"confidence"}


def test_all_violations_arrive(fake: Served) -> None:
    request = plan()
    request.job.micro_batch_size = -(2**62)
    request.job.precision = 77
    request.job.optimizer.momentum = float("nan")
    request.gpus[1].gpu_type = ""
    refusal = fake.refusal("PlanJob", request)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == {
        "job.precision",
        "job.micro_batch_size",
        "job.optimizer.momentum",
        "gpus[1].gpu_type",
    }
    assert refusal.details["ErrorInfo"].reason == "INVALID_REQUEST"
    assert "(4 violations" in refusal.message


def test_more_violations_than_metadata_holds(fake: Served) -> None:
    request = plan()
    request.job.ClearField("model")
    for _ in range(1500):
        request.job.model.layer_stack.layers.add(name="\n", repeat=-1)
    refusal = fake.refusal("PlanJob", request)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    violations = refusal.details["BadRequest"].field_violations
    assert 20 < len(violations) < 100
    assert "further violations" in violations[-1].description


def test_unknown_names_come_with_the_nearest(fake: Served) -> None:
    refusal = fake.refusal("PlanJob", plan("ok", "nvidia-a100"))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert "nvidia-a100-80gb" in refusal.details["ErrorInfo"].metadata["nearest"]
    refusal = fake.refusal("PlanJob", plan("atention"))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert "fake/attention" in refusal.message


def test_a_job_the_model_refuses(fake: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        refusal = fake.refusal("EstimateMemory", estimate("build-error"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == {"job.model"}
    assert not PATHS_AND_TRACES.search(refusal.message + str(refusal.details))
    assert "/secret/place/model.py" in caplog.text


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("hang", grpc.StatusCode.DEADLINE_EXCEEDED),
        ("explode", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("kill", grpc.StatusCode.INTERNAL),
        ("crash", grpc.StatusCode.INTERNAL),
        ("defect", grpc.StatusCode.INTERNAL),
    ],
)
def test_a_bad_model_costs_its_own_request_only(
    start: Starter, name: str, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    fake = start(**({"job_time_limit": 3.0} if name == "hang" else {}))
    refusal = fake.refusal("EstimateMemory", estimate(name))
    assert refusal.code is code
    assert not PATHS_AND_TRACES.search(refusal.message + str(refusal.details))
    if code is grpc.StatusCode.INTERNAL:
        incident = refusal.details["RequestInfo"].request_id
        assert incident in refusal.message
        assert any(incident in record.getMessage() and record.exc_info for record in caplog.records)
    if name == "defect":
        assert "/secret/place/model.py" in caplog.text
    assert fake.health() == SERVING
    assert fake.call("EstimateMemory", estimate("ok")).estimate.device_used_bytes > 0


def test_a_defect_of_the_core_leaks_nothing(
    fake: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("/secret/place")

    monkeypatch.setattr("memplan_server.core.normalize", broken)
    refusal = fake.refusal("EstimateMemory", estimate("ok"))
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert not PATHS_AND_TRACES.search(refusal.message + str(refusal.details))
    assert "Traceback" in caplog.text


def test_the_callers_deadline_holds_and_stops_the_work(fake: Served) -> None:
    fake.call("EstimateMemory", estimate("ok"))
    with pytest.raises(grpc.RpcError) as raised:
        fake.stub.EstimateMemory(estimate("hang"), timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert fake.call("EstimateMemory", estimate("attention"))  # the one worker is free again


def test_a_cancelled_call_stops_its_work(fake: Served) -> None:
    fake.call("EstimateMemory", estimate("ok"))
    call = fake.stub.EstimateMemory.future(estimate("hang"))
    fake.wait_for('memplan_workers{state="busy"}')
    call.cancel()
    assert fake.call("EstimateMemory", estimate("attention"))
    assert fake.metric('memplan_worker_ends_total{reason="cancelled"}') == 1


def test_equal_calls_share_the_work_and_one_leaving_does_not_stop_it(
    fake: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TASKS_GATE", str(tmp_path / "gate"))
    fake.call("EstimateMemory", estimate("ok"))
    leaving = fake.stub.EstimateMemory.future(estimate("gated"))
    fake.wait_for('memplan_workers{state="busy"}')
    staying = fake.stub.EstimateMemory.future(estimate("gated", 2), timeout=SOON_S)
    fake.wait_for('memplan_cache_requests_total{cache="timeline_store",result="miss"}', 3)
    leaving.cancel()
    fake.wait_for("memplan_requests_in_flight")
    gate().touch()
    assert staying.result().estimate.micro_batch_size == 2
    assert fake.metric("memplan_simulation_duration_seconds_count") == 3  # names, ok, gated


def test_too_many_calls_at_once_are_told_to_try_again(start: Starter) -> None:
    served = start(max_concurrent_calls=2)
    kept = served.call("EstimateMemory", estimate("ok"))
    hanging = [served.stub.EstimateMemory.future(estimate("hang", n)) for n in (1, 2)]
    served.wait_for("memplan_requests_in_flight", 2)
    refusal = served.refusal("EstimateMemory", estimate("attention"))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 1
    assert served.call("EstimateMemory", estimate("ok")) == kept
    assert served.health() == SERVING
    for call in hanging:
        call.cancel()
    served.wait_for("memplan_requests_in_flight", 0)
    assert served.call("EstimateMemory", estimate("attention"))


def test_a_call_without_a_deadline_ends_too(start: Starter) -> None:
    served = start(call_time_limit=0.5)
    with pytest.raises(grpc.RpcError) as raised:
        served.stub.EstimateMemory(estimate("hang"))
    assert Refusal.of(raised.value).code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (b"\x0a\x04\x0a\x02\x0a\x7f", grpc.StatusCode.INVALID_ARGUMENT),
        (b"", grpc.StatusCode.INVALID_ARGUMENT),
        (bytes(5 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["no-message", "cut-off", "empty", "too-large"],
)
def test_bytes_that_are_no_request(fake: Served, data: bytes, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        fake.channel.unary_unary("/memplan.v1.MemoryPlanner/PlanJob")(data, timeout=SOON_S)
    assert raised.value.code() is code
    assert fake.health() == SERVING


def test_what_the_server_does_not_do_is_unimplemented(fake: Served) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        fake.channel.unary_unary("/memplan.v1.MemoryPlanner/Nonsense")(b"", timeout=SOON_S)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def pages(fake: Served, method: str, request: Any, field: str) -> list[str]:
    names: list[str] = []
    while True:
        page = fake.call(method, request)
        assert 0 < len(getattr(page, field)) <= request.page_size
        names += [item.name for item in getattr(page, field)]
        if not page.next_page_token:
            return names
        request.page_token = page.next_page_token


def test_listings_are_paged(fake: Served) -> None:
    gpu_types = pages(fake, "ListGpuTypes", pb.ListGpuTypesRequest(page_size=7), "gpu_types")
    assert gpu_types == sorted(set(gpu_types))
    assert {"nvidia-t4", "nvidia-b200"} < set(gpu_types)
    filtered = pb.ListGpuTypesRequest(page_size=1, filter="Tesla")
    assert set(pages(fake, "ListGpuTypes", filtered, "gpu_types")) < set(gpu_types)
    models = pages(fake, "ListModels", pb.ListModelsRequest(page_size=2, filter="FAKE/"), "models")
    assert len(models) == 13


@pytest.mark.parametrize("token", ["nonsense", "é", "AAAA", "AAAAAAAAAAAAAAAA"])
def test_wrong_page_tokens_are_refused(fake: Served, token: str) -> None:
    for method, request in (
        ("ListGpuTypes", pb.ListGpuTypesRequest(page_token=token)),
        ("ListModels", pb.ListModelsRequest(page_token=token)),
    ):
        assert fake.refusal(method, request).fields == {"page_token"}


def test_page_tokens_hold_for_their_filter_and_listing(fake: Served) -> None:
    first = fake.call("ListGpuTypes", pb.ListGpuTypesRequest(page_size=2))
    other = pb.ListGpuTypesRequest(page_size=2, filter="t4", page_token=first.next_page_token)
    assert fake.refusal("ListGpuTypes", other).fields == {"page_token"}
    models = pb.ListModelsRequest(page_token=first.next_page_token)
    assert fake.refusal("ListModels", models).fields == {"page_token"}


def test_health_and_reflection(fake: Served) -> None:
    assert fake.health() == fake.health("memplan.v1.MemoryPlanner") == SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(fake.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=SOON_S)
    names = {service.name for service in answer.list_services_response.service}
    assert {"memplan.v1.MemoryPlanner", "grpc.health.v1.Health"} <= names


def test_open_streams_do_not_use_up_the_server(start: Starter) -> None:
    served = start(max_concurrent_calls=2)
    stop = threading.Event()

    def requests() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        stop.wait(SOON_S)

    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    streams = [stub.ServerReflectionInfo(requests(), timeout=SOON_S) for _ in range(40)]
    time.sleep(0.3)
    try:
        assert served.call("EstimateMemory", estimate("ok"))
        assert served.health() == SERVING
    finally:
        stop.set()
        for stream in streams:
            stream.cancel()


def test_many_callers_at_once(fake: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda n: fake.call("EstimateMemory", estimate("ok", 1 + n % 4)), range(64))
        )
    assert [a.estimate.micro_batch_size for a in answers] == [1 + n % 4 for n in range(64)]


def test_the_log_names_refusals(fake: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fake.refusal("PlanJob", plan("nothing"))
    assert "NOT_FOUND: There is no model 'fake/nothing'" in caplog.text
