"""How far device-used bytes may be from the estimate.

The margins are provisional: read off the distance between estimates and public measurements, wide
enough to cover them, wider where cuDNN convolutions take workspaces that are not simulated.
"""

from __future__ import annotations

from dataclasses import dataclass

from memplan_server.timeline import Timeline

__all__ = ["CONFIDENCE", "Bounds", "bounds", "safe_bytes"]

CONFIDENCE = 0.95
"""Share of jobs whose device-used bytes lie on the right side of each bound."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower and upper bound of device-used bytes."""

    lower_bytes: int
    upper_bytes: int


@dataclass(frozen=True, slots=True)
class _Margin:
    below: float
    below_bytes: int
    above: float
    above_bytes: int


_PLAIN = _Margin(below=0.03, below_bytes=100 * _MIB, above=0.03, above_bytes=100 * _MIB)
_CONVOLUTION = _Margin(below=0.10, below_bytes=100 * _MIB, above=0.12, above_bytes=300 * _MIB)


def bounds(timeline: Timeline, device_used_bytes: int) -> Bounds:
    """The bounds for a job with this timeline."""
    margin = _margin(timeline)
    lower = device_used_bytes - int(device_used_bytes * margin.below) - margin.below_bytes
    upper = device_used_bytes + int(device_used_bytes * margin.above) + margin.above_bytes
    return Bounds(max(0, lower), upper)


def safe_bytes(timeline: Timeline, capacity_bytes: int) -> int:
    """The most device-used bytes whose upper bound does not exceed the capacity."""
    margin = _margin(timeline)
    return int((capacity_bytes - margin.above_bytes) / (1 + margin.above))


def _margin(timeline: Timeline) -> _Margin:
    return _CONVOLUTION if "convolution" in timeline.traits else _PLAIN
