"""A server on a machine that seems to have GPUs, and a real Prometheus that scrapes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fake_nvml import Gpu, Nvml
from observed import ROOT, RULES
from real_prometheus import Prometheus, scraping

from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan_server.app import RunningServer, serve
from memplan_server.settings import Settings

sys.path.append(str(ROOT / "deploy" / "grafana"))

MIB = 1 << 20
GPUS = (
    Gpu("GPU-1", "NVIDIA H100 80GB HBM3", used=0),
    Gpu("GPU-2", "NVIDIA H100 80GB HBM3", used=60_000 * MIB),
    Gpu("GPU-3", "Tesla T4", used=80_000 * MIB),
)
"""What it has; all of them have 80,000 MiB."""


@pytest.fixture(scope="session")
def gpu_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server, which has planned one job."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for module in ("inventory", "profiling.setup"):
            patch.setattr(f"memplan_server.{module}.load_nvml", lambda: Nvml(*GPUS))
        patch.setattr("memplan_server.profiling.devices._torch_has_cuda", lambda: True)
        settings = Settings(
            listen="127.0.0.1:0",
            metrics_port=0,
            data_dir=tmp_path_factory.mktemp("data"),
            workers=1,
            node_name="node-1",
        )
        running = serve(settings)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            MemoryPlannerStub(channel).PlanJob(a_job(), timeout=60)
        yield running
    finally:
        running.stop()


def a_job() -> pb.PlanJobRequest:
    """A small one, for the two GPU types that there are."""
    request = pb.PlanJobRequest()
    request.job.model.layer_stack.layers.add().linear.out_features = 10
    request.job.inputs.add(shape=[28])
    request.job.micro_batch_size = 4
    for name in ("nvidia-h100-80gb", "nvidia-t4"):
        request.gpus.add(gpu_type=name)
    return request


@pytest.fixture(scope="session")
def prometheus(
    gpu_server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """The Prometheus, which has evaluated its rules."""
    target = f"127.0.0.1:{gpu_server.metrics_port}"
    with scraping(target, RULES, Path(tmp_path_factory.mktemp("prometheus"))) as running:
        running.wait_for("job_digest:memplan_job_spare_bytes:max")
        # The rules of the last group, and not only before the first scrape, when all is absent.
        running.wait_for(
            "ALERTS{alertname='MemplanNoFreeGpu'} unless on () ALERTS{alertname='MemplanAbsent'}"
        )
        yield running
