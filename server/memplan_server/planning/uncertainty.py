"""How far device-used bytes may be from the estimate, by what was seen in measurements.

A residual is what a measurement is above (or below) its estimate beyond a slack for the CUDA
context, as a share of the reserved bytes. `residuals.toml` holds quantiles of the residuals of each
family of jobs, as split conformal prediction takes them: the quantile of n residuals at confidence
c is the ceil((n + 1) c)-th smallest. `bench/calibrate.py` writes it from measurements. What was
never measured gets the margins of the family that is known worst, doubled.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from memplan.types import GpuType
from memplan_server.gpus.libraries import workspaces
from memplan_server.timeline import Convolution, Timeline

__all__ = ["CONFIDENCE", "FAMILIES", "Bounds", "Margin", "bounds", "family", "margin", "reason"]

CONFIDENCE = 0.99
"""Share of jobs whose device-used bytes lie on the right side of each bound."""

FAMILIES: Mapping[str, str] = {
    "dense": "matrix products and fused attention are simulated call by call",
    "channels_last_convolution": "cuDNN chooses how it convolves channels-last tensors",
    "convolution": "cuDNN chooses how it convolves, and takes a workspace for it",
    "unfused_attention": "attention without a fused kernel was seen to take more",
    "unmeasured": "no job of this kind was measured yet",
}
"""Families of jobs, and why their estimates are as sure as they are."""

_MIB = 1 << 20
_WIDENING = 2.0
_ESTIMATED_CONTEXT_SHARE = 0.5
"""A context that was estimated from other GPUs' may be off by this share."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower and upper bound of device-used bytes."""

    lower_bytes: int
    upper_bytes: int


@dataclass(frozen=True, slots=True)
class Margin:
    """What lies between an estimate and its bounds: shares of the reserved bytes, and bytes."""

    above: float
    below: float
    slack_bytes: int

    def bounds(self, reserved_bytes: int, context_bytes: int) -> Bounds:
        """The bounds of device-used bytes."""
        used = reserved_bytes + context_bytes
        lower = used - self.slack_bytes - int(self.below * reserved_bytes)
        upper = used + self.slack_bytes + int(self.above * reserved_bytes)
        return Bounds(max(0, lower), upper)

    def safe_reserved_bytes(self, capacity_bytes: int, context_bytes: int) -> int:
        """The most reserved bytes whose upper bound does not exceed the capacity."""
        return int((capacity_bytes - context_bytes - self.slack_bytes) / (1 + self.above))


def bounds(timeline: Timeline, gpu_type: GpuType, reserved_bytes: int) -> Bounds:
    """The bounds for a job with this timeline on this GPU type."""
    return margin(timeline, gpu_type).bounds(reserved_bytes, gpu_type.context_bytes)


def margin(timeline: Timeline, gpu_type: GpuType) -> Margin:
    """The margin of such jobs at `CONFIDENCE`."""
    slack, by_family = _residuals()
    if gpu_type.sources.get("context_bytes", "").startswith("estimate"):
        slack += int(_ESTIMATED_CONTEXT_SHARE * gpu_type.context_bytes)
    above, below = by_family[family(timeline, gpu_type)]
    return Margin(above, below, slack)


def reason(timeline: Timeline, gpu_type: GpuType) -> str:
    """Why the bounds are as far apart as they are."""
    return FAMILIES[family(timeline, gpu_type)]


def family(timeline: Timeline, gpu_type: GpuType) -> str:
    """The family of jobs, by what makes estimates unsure; one of `FAMILIES`."""
    if "recurrent" in timeline.traits or not timeline.affine:
        return "unmeasured"
    spatial = {c for c in timeline.convolutions if c.direction == "wgrad" and _overlapping(c)}
    contiguous = {c for c in spatial if not c.channels_last}
    if len(contiguous) > 1:  # a single one is the stem
        on_tensor_cores = workspaces(gpu_type).tensor_core_dtypes
        flat = all(len(c.image) <= 3 for c in contiguous)
        known = flat and all(c.dtype in on_tensor_cores for c in contiguous)
        return "convolution" if known else "unmeasured"
    if spatial - contiguous:
        return "channels_last_convolution"
    return "unfused_attention" if "unfused_attention" in timeline.traits else "dense"


def _overlapping(convolution: Convolution) -> bool:
    """Not a product of matrices, as 1x1 convolutions and the cutting into patches are."""
    lengths = convolution.kernel[2:]
    return max(lengths) > 1 and lengths != convolution.stride


@functools.cache
def _residuals() -> tuple[int, dict[str, tuple[float, float]]]:
    """Bytes of slack, and the shares above and below of each family."""
    file = files("memplan_server.planning") / "residuals.toml"
    data: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    shares = {
        name: (data[name]["above"][f"{CONFIDENCE:.2f}"], data[name]["below"][f"{CONFIDENCE:.2f}"])
        for name in FAMILIES
        if name in data
    }
    worst = [max(s[side] for s in shares.values()) * _WIDENING for side in (0, 1)]
    unmeasured = {name: (worst[0], worst[1]) for name in FAMILIES if name not in data}
    return data["slack_mib"] * _MIB, shares | unmeasured
