"""How far device-used bytes may be from the estimate, by what was seen in measurements.

A residual is what a measurement is above (or below) its estimate beyond a slack for the CUDA
context, as a share of what can be wrong (`residual.py`). `residuals.toml` holds quantiles of the
residuals of each family of jobs, as split conformal prediction takes them: the quantile of n
residuals at confidence c is the ceil((n + 1) c)-th smallest. `bench/calibrate.py` writes it from
measurements. What was never measured gets margins twice as wide as those of the family that is
known worst.

Quantiles are kept at a few confidences. One asked for between them gets the next above, and
`held_confidence` says which; above `CONFIDENCE` there are too few residuals to tell.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from memplan.types import GpuType
from memplan_server.gpus.libraries import COMMUNICATION_BYTES, capability, workspaces
from memplan_server.planning.learned import NOTHING_LEARNED, Learned
from memplan_server.planning.residual import unsure_bytes
from memplan_server.timeline import Convolution, Timeline

__all__ = [
    "CONFIDENCE",
    "FAMILIES",
    "Bounds",
    "Margin",
    "Residuals",
    "bounds",
    "confidences_from",
    "family",
    "held_confidence",
    "margin",
    "reason",
    "slack_bytes",
]

CONFIDENCE = 0.99
"""Share of jobs whose device-used bytes lie on the right side of each bound, unless another is
asked for; the highest there is."""

FAMILIES: Mapping[str, str] = {
    "dense": "matrix products and attention are simulated call by call",
    "channels_last_convolution": "cuDNN chooses how it convolves channels-last tensors",
    "convolution": "cuDNN chooses how it convolves, and takes a workspace for it",
    "grouped_convolution": "some convolutions in groups were seen to take more than the others",
    "hopper_convolution": "cuDNN chooses how it convolves on Hopper, by rules found there",
    "recurrent": "cuDNN computes all time steps in one call, and takes a workspace for it",
    "unmeasured": "no job of this kind was measured yet",
}
"""Families of jobs, and why their estimates are as sure as they are."""

_MIB = 1 << 20
_UNMEASURED = 2.0
"""What was never measured may be off by so many times the margin of what is known worst."""
_RECURRENT_MEASURED_ON = (9, 0)
_ESTIMATED_CONTEXT_SHARE = 0.5
"""A context that was estimated from other GPUs' may be off by this share."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower and upper bound of device-used bytes."""

    lower_bytes: int
    upper_bytes: int


@dataclass(frozen=True, slots=True)
class Margin:
    """What lies between an estimate and its bounds: shares of the unsure bytes, and bytes."""

    above: float
    below: float
    slack_bytes: int
    communication_bytes: int = 0
    """On the upper side only: it is not expected."""

    def bounds(self, allocated_bytes: int, reserved_bytes: int, context_bytes: int) -> Bounds:
        """The bounds of device-used bytes, from the peaks of what is expected."""
        used, unsure = reserved_bytes + context_bytes, unsure_bytes(allocated_bytes, reserved_bytes)
        lower = used - self.slack_bytes - int(self.below * unsure)
        upper = used + self.slack_bytes + self.communication_bytes + int(self.above * unsure)
        return Bounds(max(0, lower), upper)


@dataclass(frozen=True, slots=True)
class Residuals:
    """What is known of residuals: bytes of slack, and quantiles beyond it by family."""

    slack_bytes: int
    quantiles: Mapping[str, Mapping[float, tuple[float, float]]]
    """By family and confidence, rising: shares of the unsure bytes, above and below."""

    @classmethod
    def parse(cls, text: str) -> Residuals:
        """From TOML: `slack_mib`, and a table a family with `above` and `below` by confidence.

        A wrong text is a defect of this package: assertions hold that every family has the same
        confidences up to `CONFIDENCE`, and that no quantile falls while confidence rises.
        """
        data: dict[str, Any] = tomllib.loads(text)
        known = {name: _quantiles(data[name]) for name in FAMILIES if name in data}
        confidences = list(next(iter(known.values())))
        assert all(list(of_family) == confidences for of_family in known.values())
        unknown = {
            c: (
                _UNMEASURED * max(of_family[c][0] for of_family in known.values()),
                _UNMEASURED * max(of_family[c][1] for of_family in known.values()),
            )
            for c in confidences
        }
        return cls(data["slack_mib"] * _MIB, {name: known.get(name, unknown) for name in FAMILIES})

    @property
    def confidences(self) -> tuple[float, ...]:
        """The confidences that there are quantiles for, rising."""
        return tuple(next(iter(self.quantiles.values())))


def confidences_from(confidence: float) -> tuple[float, ...]:
    """The confidences that there are quantiles for and that are not below this one, falling."""
    assert confidence <= CONFIDENCE
    return tuple(c for c in reversed(_residuals().confidences) if c >= confidence)


def held_confidence(confidence: float) -> float:
    """The confidence of the bounds one gets: the lowest there is that is not below this one."""
    return confidences_from(confidence)[-1]


def bounds(
    timeline: Timeline,
    gpu_type: GpuType,
    allocated_bytes: int,
    reserved_bytes: int,
    confidence: float = CONFIDENCE,
    learned: Learned = NOTHING_LEARNED,
) -> Bounds:
    """The bounds for a job with this timeline and these peaks on this GPU type."""
    found = margin(timeline, gpu_type, confidence, learned)
    return found.bounds(allocated_bytes, reserved_bytes, gpu_type.context_bytes)


def slack_bytes() -> int:
    """What residuals are beyond."""
    return _residuals().slack_bytes


def margin(
    timeline: Timeline,
    gpu_type: GpuType,
    confidence: float = CONFIDENCE,
    learned: Learned = NOTHING_LEARNED,
) -> Margin:
    """The margin of such jobs at `held_confidence(confidence)`."""
    residuals = _residuals()
    slack = residuals.slack_bytes
    if gpu_type.sources.get("context_bytes", "").startswith("estimate"):
        slack += int(_ESTIMATED_CONTEXT_SHARE * gpu_type.context_bytes)
    held, kind = held_confidence(confidence), family(timeline, gpu_type)
    shipped = residuals.quantiles[kind][held]
    above, below = learned.quantiles(gpu_type.name, kind, held, shipped)
    communication = COMMUNICATION_BYTES if "data_parallel" in timeline.traits else 0
    return Margin(above, below, slack, communication)


def reason(timeline: Timeline, gpu_type: GpuType, learned: Learned = NOTHING_LEARNED) -> str:
    """Why the bounds are as far apart as they are."""
    kind = family(timeline, gpu_type)
    if kind == "unmeasured" and (count := learned.count(gpu_type.name, kind)):
        return f"such jobs measured on such GPUs: {count}"
    return FAMILIES[kind]


def family(timeline: Timeline, gpu_type: GpuType) -> str:
    """The family of jobs, by what makes estimates unsure; one of `FAMILIES`."""
    if "fully_sharded" in timeline.traits or not timeline.affine:
        return "unmeasured"
    if "recurrent" in timeline.traits:
        measured = capability(gpu_type) == _RECURRENT_MEASURED_ON
        return "recurrent" if measured else "unmeasured"
    spatial = {c for c in timeline.convolutions if c.direction == "wgrad" and _overlapping(c)}
    contiguous = {c for c in spatial if not c.channels_last}
    rules = workspaces(gpu_type).convolution_rules
    if len(contiguous) > 1:  # a single one is the stem
        flat = all(len(c.image) <= 3 for c in contiguous)
        if not flat or any(c.dtype not in rules.tensor_core_dtypes for c in contiguous):
            return "unmeasured"
        if not rules.hopper:
            grouped = any(c.groups > 1 for c in contiguous)
            return "grouped_convolution" if grouped else "convolution"
    elif not spatial - contiguous:
        return "dense"
    return "hopper_convolution" if rules.hopper else "channels_last_convolution"


def _overlapping(convolution: Convolution) -> bool:
    """Not a product of matrices, as 1x1 convolutions and the cutting into patches are."""
    lengths = convolution.kernel[2:]
    return max(lengths) > 1 and lengths != convolution.stride


def _quantiles(table: Mapping[str, Mapping[str, float]]) -> dict[float, tuple[float, float]]:
    """Shares above and below by confidence, rising."""
    above, below = (sorted((float(c), q) for c, q in table[s].items()) for s in ("above", "below"))
    assert [c for c, _ in above] == [c for c, _ in below]
    assert above[-1][0] == CONFIDENCE
    for side in (above, below):
        shares = [share for _, share in side]
        assert shares[0] >= 0
        assert shares == sorted(shares)
    return {c: (high, low) for (c, high), (_, low) in zip(above, below, strict=True)}


@functools.cache
def _residuals() -> Residuals:
    file = files("memplan_server.planning") / "residuals.toml"
    return Residuals.parse(file.read_text(encoding="utf-8"))
