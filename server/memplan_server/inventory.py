"""The GPUs of this machine as Prometheus metrics, through NVML where it is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from memplan_server.errors import UnknownName
from memplan_server.gpus.catalog import GpuCatalog

__all__ = ["UNKNOWN", "GpuCollector", "instances", "load_nvml"]

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""GPU type of what is not in the catalog."""
_LABELS = ("node", "gpu", "uuid", "gpu_type")


class GpuCollector(Collector):
    """Reads type and memory of every GPU at each scrape: of its MIG instances where it has them.

    Without NVML there are none.
    """

    def __init__(self, node: str) -> None:
        """`node` is what schedulers call this machine."""
        self._node = node
        self._nvml = load_nvml()
        self._catalog = GpuCatalog.load()

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """Metrics of the GPUs; `gpu` is NVML's index, of which MIG instances share one."""
        info = InfoMetricFamily(
            "memplan_gpu", "A GPU of this machine, or a MIG instance.", labels=[*_LABELS, "name"]
        )
        total = GaugeMetricFamily(
            "memplan_gpu_memory_total_bytes", "Memory of the GPU.", labels=_LABELS
        )
        free = GaugeMetricFamily(
            "memplan_gpu_memory_free_bytes", "Memory of the GPU that nobody holds.", labels=_LABELS
        )
        for index, handle in self._handles():
            self._add(index, handle, info, total, free)
        yield from (info, total, free)

    def _handles(self) -> Iterator[tuple[int, Any]]:
        """Every GPU or MIG instance that can be reached, with the index of its GPU."""
        nvml = self._nvml
        for index in range(self._count()):
            try:
                for handle in instances(nvml, nvml.nvmlDeviceGetHandleByIndex(index)):
                    yield index, handle
            except nvml.NVMLError as error:
                log.warning("GPU %d could not be read: %s", index, error)

    def _count(self) -> int:
        if self._nvml is None:
            return 0
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as error:
            log.warning("the GPUs could not be read: %s", error)
            return 0

    def _add(
        self,
        index: int,
        handle: Any,
        info: InfoMetricFamily,
        total: GaugeMetricFamily,
        free: GaugeMetricFamily,
    ) -> None:
        """Add one GPU to all three, or, where it cannot be read, to none."""
        nvml = self._nvml
        try:
            uuid, name = str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            log.warning("GPU %d could not be read: %s", index, error)
            return
        labels = [self._node, str(index), uuid, self._gpu_type(name)]
        info.add_metric([*labels, name], {})
        total.add_metric(labels, memory.total)
        free.add_metric(labels, memory.free)

    def _gpu_type(self, name: str) -> str:
        try:
            return self._catalog.get(name).name
        except UnknownName:
            return UNKNOWN


def instances(nvml: Any, handle: Any) -> Iterator[Any]:
    """The GPU, or its MIG instances where it is in MIG mode. Raises nvml.NVMLError."""
    try:
        mode = nvml.nvmlDeviceGetMigMode(handle)
    except (AttributeError, nvml.NVMLError):  # this driver or GPU knows no MIG
        mode = None
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        yield handle
        return
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue  # slots may be empty
        yield instance


def load_nvml() -> Any:
    """pynvml, initialised; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
