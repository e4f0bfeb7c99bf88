"""What the metrics say, and that each server has its own."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nvml import Gpu, Nvml
from prometheus_client.parser import text_string_to_metric_families
from serving import Served, Starter, estimate
from test_service import plan

from memplan_server import metrics
from memplan_server.inventory import GpuCollector
from memplan_server.metrics import Metrics

METHOD = 'method="memplan.v1.MemoryPlanner/EstimateMemory"'


def test_calls_are_counted_by_method_and_code(fake: Served) -> None:
    for _ in range(3):
        fake.call("EstimateMemory", estimate("ok"))
    fake.refusal("EstimateMemory", estimate("nothing"))
    fake.health()
    assert fake.metric(f'memplan_requests_total{{code="OK",{METHOD}}}') == 3
    assert fake.metric(f'memplan_requests_total{{code="NOT_FOUND",{METHOD}}}') == 1
    assert fake.metric(f"memplan_request_duration_seconds_count{{{METHOD}}}") == 4
    assert fake.metric("memplan_requests_in_flight") == 0
    health = 'method="grpc.health.v1.Health/Check"'
    assert fake.metric(f'memplan_requests_total{{code="OK",{health}}}') == 1


def test_verdicts_are_counted_whether_kept_or_fresh(fake: Served) -> None:
    for _ in range(3):
        fake.call("PlanJob", plan("ok", "Tesla T4"))
    counted = 'memplan_verdicts_total{gpu_type="nvidia-t4",verdict="FITS"}'
    assert fake.metric(counted) == 3


def test_work_is_seen(fake: Served) -> None:
    call = fake.stub.EstimateMemory.future(estimate("hang"))
    fake.wait_for('memplan_workers{state="busy"}')  # with the one that hangs
    others = [fake.stub.EstimateMemory.future(estimate("slow", n)) for n in (1, 2)]
    fake.wait_for("memplan_requests_in_flight", 3)
    fake.wait_for("memplan_worker_tasks_queued")
    for waiting in (call, *others):
        waiting.cancel()


def test_caches_say_what_they_hold(fake: Served) -> None:
    def held(cache: str) -> float:
        return fake.metric(f'memplan_cache_size_bytes{{cache="{cache}"}}')

    assert held("answer") == held("timeline_memory") == held("timeline_store") == 0
    fake.call("EstimateMemory", estimate("ok"))
    assert held("answer") > 0
    assert held("timeline_memory") > 0
    assert held("timeline_store") > 0


def test_servers_in_one_process_count_apart(start: Starter) -> None:
    one, other = start(), start()
    one.call("EstimateMemory", estimate("ok"))
    sample = f'memplan_requests_total{{code="OK",{METHOD}}}'
    assert (one.metric(sample), other.metric(sample)) == (1, 0)


def test_names_follow_the_conventions() -> None:
    for metric in Metrics().registry.collect():
        assert metric.name.startswith("memplan_")
        assert metric.documentation.endswith(".")
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_ratio"))


def nvml(count: int, error: type[Exception] = RuntimeError) -> Any:
    """What the collector needs of pynvml, with `count` GPUs of 10 bytes, 4 of them free."""

    def handle(index: int) -> int:
        if index == 2:
            raise error("the GPU fell off the bus")
        return index

    return SimpleNamespace(
        NVMLError=error,
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetUUID=lambda gpu: f"GPU-{gpu}",
        nvmlDeviceGetName=lambda gpu: "Tesla T4",
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(total=10, free=4),
    )


def gpu_samples(monkeypatch: pytest.MonkeyPatch, nvml: Any, name: str) -> list[tuple[Any, float]]:
    """Labels and value of the samples of one metric of the GPUs."""
    monkeypatch.setattr("memplan_server.inventory.load_nvml", lambda: nvml)
    samples = [s for metric in GpuCollector("node-1").collect() for s in metric.samples]
    return [(s.labels, s.value) for s in samples if s.name == name]


def test_gpus_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"node": "node-1", "gpu_type": "nvidia-t4"}
    assert gpu_samples(monkeypatch, nvml(2), "memplan_gpu_memory_free_bytes") == [
        ({"gpu": "0", "uuid": "GPU-0", **labels}, 4),
        ({"gpu": "1", "uuid": "GPU-1", **labels}, 4),
    ]
    named = gpu_samples(monkeypatch, nvml(2), "memplan_gpu_info")
    assert [labels["name"] for labels, _ in named] == ["Tesla T4", "Tesla T4"]


def test_a_gpu_that_cannot_be_read_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu_samples(monkeypatch, nvml(4), "memplan_gpu_memory_total_bytes")
    assert [labels["gpu"] for labels, _ in found] == ["0", "1", "3"]


def test_a_gpu_in_slices_counts_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "NVIDIA A100-SXM4-40GB"
    slices = [Gpu("MIG-1", f"{name} MIG 3g.20gb"), None, Gpu("MIG-2", "NVIDIA Z9 MIG 1g.5gb")]
    gpus = Nvml(Gpu("GPU-1", name, instances=slices), Gpu("GPU-2", name))
    found = gpu_samples(monkeypatch, gpus, "memplan_gpu_memory_total_bytes")
    assert [(one["gpu"], one["uuid"], one["gpu_type"]) for one, _ in found] == [
        ("0", "MIG-1", "nvidia-a100-40gb-mig-3g.20gb"),
        ("0", "MIG-2", "unknown"),
        ("1", "GPU-2", "nvidia-a100-40gb"),
    ]


def test_the_text_can_be_read_back(fake: Served) -> None:
    fake.call("PlanJob", plan())
    names = {family.name for family in text_string_to_metric_families(fake.metrics())}
    assert {"memplan_requests", "memplan_verdicts", "memplan_build_info"} <= names


def test_a_server_runs_from_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(metrics, "version", nothing_installed)
    labels = {"version": "source", "python": platform.python_version(), "node": ""}
    assert Metrics().registry.get_sample_value("memplan_build_info", labels) == 1
