"""The GPUs of this machine as Prometheus metrics, through NVML where it is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

__all__ = ["GpuCollector", "load_nvml"]

log = logging.getLogger(__name__)


class GpuCollector(Collector):
    """Reads name and memory of every GPU at each scrape. Without NVML there are none."""

    def __init__(self) -> None:
        self._nvml = load_nvml()

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """Metrics of the GPUs; labelled by NVML's index and UUID."""
        labels = ["gpu", "uuid"]
        info = InfoMetricFamily("memplan_gpu", "A GPU of this machine.", labels=[*labels, "name"])
        total = GaugeMetricFamily(
            "memplan_gpu_memory_total_bytes", "Memory of the GPU.", labels=labels
        )
        free = GaugeMetricFamily(
            "memplan_gpu_memory_free_bytes", "Memory of the GPU that nobody holds.", labels=labels
        )
        for index, uuid, name, memory in self._read():
            info.add_metric([index, uuid, name], {})
            total.add_metric([index, uuid], memory.total)
            free.add_metric([index, uuid], memory.free)
        yield from (info, total, free)

    def _read(self) -> Iterator[tuple[str, str, str, Any]]:
        nvml = self._nvml
        if nvml is None:
            return
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                gpu = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid, name = nvml.nvmlDeviceGetUUID(gpu), nvml.nvmlDeviceGetName(gpu)
                yield str(index), uuid, name, nvml.nvmlDeviceGetMemoryInfo(gpu)
        except nvml.NVMLError as error:
            log.warning("the GPUs could not be read: %s", error)


def load_nvml() -> Any:
    """pynvml, initialised; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
