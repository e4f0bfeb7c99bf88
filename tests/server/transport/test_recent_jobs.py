"""The jobs asked about last, as a scheduler reads them from the metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Served, estimate
from test_service import plan

from memplan.v1 import planner_pb2 as pb
from memplan_server.jobs import job_digest, normalize
from memplan_server.recent_jobs import MOST_JOBS
from memplan_server.validation import read

T4, A100 = "nvidia-t4", "nvidia-a100-40gb"


def samples(served: Served, name: str) -> Iterator[tuple[dict[str, str], float]]:
    for family in text_string_to_metric_families(served.metrics()):
        yield from ((s.labels, s.value) for s in family.samples if s.name == name)


def by_gpu(served: Served, name: str) -> dict[str, float]:
    """The values for a job that is alone, by GPU type."""
    return {labels["gpu_type"]: value for labels, value in samples(served, name)}


def digest(request: pb.PlanJobRequest) -> str:
    """As profiles name the job."""
    found, _ = read(pb.PlanJobRequest, request.SerializeToString())
    return job_digest(normalize(found.job))


def test_a_plan_tells_of_its_job(fake: Served) -> None:
    request = plan("ok", "Tesla T4", A100)
    answer = fake.call("PlanJob", request)
    placements = answer.placements
    ((labels, one),) = samples(fake, "memplan_job_info")
    assert one == 1
    assert labels == {
        "job_digest": answer.job_digest,
        "model": "fake/ok",
        "optimizer": "sgd",
        "precision": "fp32",
    }
    expected = {p.gpu.gpu_type: p.device_used_bytes for p in placements}
    bounds = {p.gpu.gpu_type: p.upper_bound_bytes for p in placements}
    assert by_gpu(fake, "memplan_job_predicted_peak_bytes") == expected
    assert by_gpu(fake, "memplan_job_upper_bound_bytes") == bounds
    verdicts = [
        (one["gpu_type"], one["verdict"]) for one, _ in samples(fake, "memplan_job_verdict")
    ]
    assert verdicts == [(T4, "FITS"), (A100, "FITS")]


def test_an_estimate_adds_its_gpu_type_and_no_verdict(fake: Served) -> None:
    fake.call("PlanJob", plan("ok", T4))
    request = estimate("ok", plan("ok", T4).job.micro_batch_size)
    request.gpu_type = A100
    found = fake.call("EstimateMemory", request).estimate
    bounds = by_gpu(fake, "memplan_job_upper_bound_bytes")
    assert set(bounds) == {T4, A100}
    assert bounds[A100] == found.upper_bound_bytes
    assert [one["gpu_type"] for one, _ in samples(fake, "memplan_job_verdict")] == [T4]


def test_the_batch_asked_about_last_counts_kept_answers_too(fake: Served) -> None:
    small, large = plan("ok", T4, A100), plan("ok", T4)
    large.job.micro_batch_size = 7
    peaks = {}
    for request in (small, large, small):
        response = fake.call("PlanJob", request)
        ((labels, size),) = samples(fake, "memplan_job_micro_batch_size")
        assert (labels["job_digest"], size) == (digest(request), request.job.micro_batch_size)
        peaks = by_gpu(fake, "memplan_job_predicted_peak_bytes")
        assert peaks == {p.gpu.gpu_type: p.device_used_bytes for p in response.placements}


def test_of_gpus_of_one_type_the_one_with_most_room_counts(fake: Served) -> None:
    request = plan("ok", T4, T4, T4)
    request.gpus[0].free_bytes = request.gpus[2].free_bytes = 1
    first, roomiest, last = fake.call("PlanJob", request).placements
    assert first.verdict == last.verdict != roomiest.verdict
    ((labels, _),) = samples(fake, "memplan_job_verdict")
    assert labels["verdict"] == "FITS"


def test_the_oldest_job_leaves(fake: Served) -> None:
    requests = []
    for steps in range(1, MOST_JOBS + 2):
        request = plan("ok", T4)
        request.job.loop.accumulation_steps = steps
        request.global_batch_size = 0
        requests.append(request)
        fake.call("PlanJob", request)
        if steps == MOST_JOBS:
            fake.call("PlanJob", requests[0])  # used again: the second one is the oldest now
    kept = {labels["job_digest"] for labels, _ in samples(fake, "memplan_job_info")}
    assert kept == {digest(r) for r in requests} - {digest(requests[1])}


@pytest.mark.parametrize("method", ["EstimateMemory", "PlanJob"])
def test_what_is_refused_leaves_nothing(fake: Served, method: str) -> None:
    fake.refusal(method, estimate("nothing") if method == "EstimateMemory" else plan("nothing"))
    assert not list(samples(fake, "memplan_job_info"))
