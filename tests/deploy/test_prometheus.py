"""What Prometheus's own tool says of the metrics of a server that runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from memplan.v1 import planner_pb2, planner_pb2_grpc
from memplan_server.app import serve
from memplan_server.settings import Settings


@pytest.mark.integration
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
