"""What the devices of this machine do, counted for the metrics."""

from __future__ import annotations

from collections import Counter

from memplan.types import DeviceType
from memplan_server.inventory import UNKNOWN
from memplan_server.profiling.devices import Device, Gpus
from memplan_server.profiling.queue import DeviceQueue

__all__ = ["STATES", "device_states"]

STATES = ("idle", "busy", "occupied")


def device_states(node: str, queue: DeviceQueue, gpus: Gpus) -> dict[tuple[str, ...], float]:
    """How many devices are in each state, by node, device type, GPU type, state; with zeros."""
    counts: Counter[tuple[str, ...]] = Counter()
    for device in queue.devices:
        kind = node, device.type.value, _gpu_type(device)
        counts.update({(*kind, state): 0 for state in STATES})
        counts[(*kind, _state(device, queue, gpus))] += 1
    return {labels: float(count) for labels, count in counts.items()}


def _gpu_type(device: Device) -> str:
    return device.gpu_type or UNKNOWN if device.type is DeviceType.CUDA else ""


def _state(device: Device, queue: DeviceQueue, gpus: Gpus) -> str:
    """A profile that has the device and waits for others to leave it does not make it busy."""
    if queue.is_measuring(device):
        return "busy"
    if device.type is DeviceType.CUDA and gpus.obstacle(device):
        return "occupied"
    return "idle"
