"""A real Prometheus and its tool: the metrics of a server that runs, the rules, the queries."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from observed import ROOT, RULES, RULES_TEST, alerts, dashboard_queries, recorded
from real_prometheus import Prometheus

from memplan.v1 import planner_pb2, planner_pb2_grpc
from memplan_server.app import serve
from memplan_server.settings import Settings

pytestmark = pytest.mark.integration
MIB = 1 << 20


def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    settings = Settings(listen="127.0.0.1:0", metrics_port=0, data_dir=tmp_path, workers=1)
    server = serve(settings)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = planner_pb2_grpc.MemoryPlannerStub(channel)
            answer = stub.ListGpuTypes(planner_pb2.ListGpuTypesRequest(), timeout=30)
        with urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as page:
            text = page.read()
    finally:
        server.stop(0)
    assert answer.gpu_types
    assert re.search(rb"^memplan_requests_total\{.*ListGpuTypes.*\} 1.0$", text, flags=re.M)
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def promtool(*arguments: object) -> str:
    """What it prints; it must be content."""
    result = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_rules_are_rules_and_do_what_their_tests_say() -> None:
    assert f"{len(alerts()) + len(recorded())} rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", RULES_TEST)


def test_the_configuration_in_the_docs_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "server.md").read_text()
    (config,) = re.findall(r"^```yaml\n(# prometheus\.yaml\n.*?)^```$", page, flags=re.M | re.S)
    (tmp_path / "prometheus.yaml").write_text(config)
    (tmp_path / "rules.yaml").symlink_to(RULES)
    printed = promtool("check", "config", tmp_path / "prometheus.yaml")
    assert f"{len(alerts()) + len(recorded())} rules found" in printed


def test_the_server_is_scraped_and_all_rules_are_evaluated(prometheus: Prometheus) -> None:
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    rules = [r for group in prometheus.get("rules")["groups"] for r in group["rules"]]
    assert {r["name"] for r in rules} == recorded() | {alert["alert"] for alert in alerts()}
    assert {(r["health"], r.get("lastError", "")) for r in rules} == {("ok", "")}
    raised = {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}
    assert raised == {"MemplanNoFreeGpu"}


def test_a_scheduler_learns_where_there_is_room(prometheus: Prometheus) -> None:
    free = prometheus.by("gpu_type", "gpu_type:memplan_gpu_memory_free_bytes:sum")
    assert free == {"nvidia-h100-80gb": 100_000 * MIB, "nvidia-t4": 0}
    raw = "sum by (gpu_type) (memplan_gpu_memory_free_bytes)"
    assert prometheus.by("gpu_type", raw) == free
    assert prometheus.by("node", "sum by (node) (memplan_gpu_memory_total_bytes)") == {
        "node-1": 240_000 * MIB
    }
    assert prometheus.by("gpu_type", "gpu_type:memplan_gpus_free:count") == {
        "nvidia-h100-80gb": 1,
        "nvidia-t4": 0,
    }
    bounds = prometheus.by("gpu_type", "memplan_job_upper_bound_bytes")
    assert prometheus.by("gpu_type", "job_digest:memplan_job_spare_bytes:max") == {
        "nvidia-h100-80gb": 80_000 * MIB - bounds["nvidia-h100-80gb"],
        "nvidia-t4": -bounds["nvidia-t4"],
    }


def test_the_queries_of_the_dashboard_are_answered(prometheus: Prometheus) -> None:
    answers = {query: prometheus.query(query) for query in dashboard_queries()}
    planned = [labels for query in answers if "group_left" in query for labels, _ in answers[query]]
    assert {(one["gpu_type"], one["verdict"], one["model"]) for one in planned} == {
        ("nvidia-h100-80gb", "FITS", "layer_stack"),
        ("nvidia-t4", "FITS", "layer_stack"),
    }
