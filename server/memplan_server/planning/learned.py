"""What measured profiles teach of a GPU type: its context, and how far estimates are off on it.

    gpu_type = with_learned_context(gpu_type, profiles)
    rows = residuals(profiles, gpu_type, slack_bytes=100 << 20, version=version)
    learned = Learned({("nvidia-t4", "dense"): rows["dense"]})
    learned.quantiles("nvidia-t4", "dense", 0.9, shipped=(0.015, 0.0))

The estimate of a measured job is kept with its profile: this is arithmetic, and simulates nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from memplan.types import DeviceType, GpuType, MeasuredProfile, TrainingJob
from memplan_server.jobs import digest
from memplan_server.planning.residual import residual, unsure_bytes

__all__ = ["NOTHING_LEARNED", "Learned", "Rows", "residuals", "with_learned_context"]

LEAST_MODELS = 3
"""One model's jobs are like each other; fewer than these stand for no others."""
_WHOLE = 0.98
"""A memory limit below this share of what is usable is one that somebody set."""
_ROUNDING = 1e-9
_NAMED_VERSIONS = ("driver", "cuda", "torch")
"""Versions that the context depends on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Residuals of one family on one GPU type: shares of the unsure bytes beyond the slack."""

    above: tuple[float, ...]
    """How far measurements lie above their estimates, rising."""
    below: tuple[float, ...]
    """How far below, rising."""
    models: int
    """Models among them."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned of residuals."""

    rows: Mapping[tuple[str, str], Rows]
    """By GPU type and family."""

    def quantiles(
        self, gpu_type: str, family: str, confidence: float, shipped: tuple[float, float]
    ) -> tuple[float, float]:
        """Shares of the unsure bytes above and below, from those that are `shipped`."""
        rows = self.rows.get((gpu_type, family))
        if rows is None:
            return shipped
        enough = rows.models >= LEAST_MODELS
        return (
            _quantile(rows.above, confidence, shipped[0], enough),
            _quantile(rows.below, confidence, shipped[1], enough),
        )

    def count(self, gpu_type: str, family: str) -> int:
        """Jobs of the family that were measured on the GPU type."""
        rows = self.rows.get((gpu_type, family))
        return len(rows.above) if rows is not None else 0


NOTHING_LEARNED = Learned(MappingProxyType({}))
"""Nothing was learned."""


def with_learned_context(gpu_type: GpuType, profiles: Iterable[MeasuredProfile]) -> GpuType:
    """The GPU type with the context that its profiles have; as it is where there are too few.

    The median over models, each of which counts with its newest profile.
    """
    usable = [p for p in profiles if _is_typical(p) and p.context_after_bytes > 0]
    by_model: dict[str, MeasuredProfile] = {}
    for profile in usable:
        by_model.setdefault(_model(profile), profile)
    if len(by_model) < LEAST_MODELS:
        return gpu_type
    median = int(statistics.median(p.context_after_bytes for p in by_model.values()))
    if not median < gpu_type.usable_bytes:
        return gpu_type
    source = (
        f"measured: median of {len(by_model)} models, from {len(usable)} profiles stored on this "
        f"server ({_versions(usable)})"
    )
    return replace(
        gpu_type, context_bytes=median, sources={**gpu_type.sources, "context_bytes": source}
    )


def residuals(
    profiles: Iterable[MeasuredProfile], gpu_type: GpuType, *, slack_bytes: int, version: str
) -> dict[str, Rows]:
    """By family, of profiles of this GPU type, newest first, whose estimate is of this `version`.

    Every job counts once at each micro-batch size. Left out are runs that ran out of memory, on
    shared GPUs, or within a memory limit.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    models: dict[str, set[str]] = defaultdict(set)
    seen: set[tuple[str, int]] = set()
    for profile in profiles:
        prediction = profile.prediction
        key = profile.job_digest, profile.micro_batch_size
        if prediction is None or prediction.version != version or key in seen:
            continue
        if (
            not _is_typical(profile)
            or not profile.device_used_bytes
            or _is_limited(profile, gpu_type)
        ):
            continue
        seen.add(key)
        used = max(
            profile.device_used_bytes, profile.peak_reserved_bytes + profile.context_after_bytes
        )
        off = used - prediction.peak_reserved_bytes - gpu_type.context_bytes
        unsure = unsure_bytes(prediction.peak_allocated_bytes, prediction.peak_reserved_bytes)
        found[prediction.family].append(residual(off, slack_bytes, unsure))
        models[prediction.family].add(_model(profile))
    return {name: _rows(shares, len(models[name])) for name, shares in found.items()}


def _rows(shares: Sequence[tuple[float, float]], models: int) -> Rows:
    above, below = (tuple(sorted(side)) for side in zip(*shares, strict=True))
    return Rows(above=above, below=below, models=models)


def _quantile(rows: Sequence[float], confidence: float, shipped: float, enough: bool) -> float:
    """The ceil((n + 1) c)-th smallest of n, as split conformal prediction takes it.

    With too few rows for that, what is shipped, or the largest row where that is larger. It never
    falls while the confidence rises: the largest row is not below any quantile of the rows.
    """
    rank = math.ceil((len(rows) + 1) * confidence - _ROUNDING)
    if enough and rank <= len(rows):
        return rows[rank - 1]
    return max(shipped, rows[-1])


def _is_typical(profile: MeasuredProfile) -> bool:
    """Whether a job had a GPU for itself and ran to its end."""
    on_gpu = profile.device_type is DeviceType.CUDA
    return on_gpu and not profile.out_of_memory and not profile.shared


def _is_limited(profile: MeasuredProfile, gpu_type: GpuType) -> bool:
    return 0 < profile.memory_limit_bytes < _WHOLE * gpu_type.usable_bytes


def _model(profile: MeasuredProfile) -> str:
    model = profile.job.model
    return model.catalog.name if model.catalog is not None else digest(TrainingJob(model=model))


def _versions(profiles: Sequence[MeasuredProfile]) -> str:
    """`driver 580.1, torch 2.10, 2.11`."""
    parts = []
    for name in _NAMED_VERSIONS:
        found = {p.library_versions[name] for p in profiles if p.library_versions.get(name)}
        if found:
            parts.append(f"{name} {', '.join(sorted(found))}")
    return "; ".join(parts) or "of unknown versions"
