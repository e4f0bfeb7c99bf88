"""Measured profiles as text for people, beside the estimate where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, timedelta

from rich.console import Group, RenderableType
from rich.text import Text

from memplan.cli.layout import INDENT, PHASES, job_title, listing, section, size, table
from memplan.types import (
    DeviceType,
    MeasuredProfile,
    MemoryEstimate,
    ThroughputPoint,
)

__all__ = ["beside", "overview", "page", "profile"]

_FIGURES: dict[str, tuple[Callable[[MeasuredProfile], int], Callable[[MemoryEstimate], int]]] = {
    "allocated": (lambda p: p.peak_allocated_bytes, lambda e: e.peak_allocated_bytes),
    "reserved": (lambda p: p.peak_reserved_bytes, lambda e: e.peak_reserved_bytes),
    "CUDA context": (lambda p: p.context_after_bytes, lambda e: e.breakdown.context_bytes),
    "device used": (lambda p: p.device_used_bytes, lambda e: e.device_used_bytes),
}
"""What is compared, of a profile and of an estimate."""


def profile(one: MeasuredProfile, estimate: MemoryEstimate | None, width: int) -> RenderableType:
    """One profile with everything but its curve."""
    versions = ", ".join(f"{k} {v}" for k, v in sorted(one.library_versions.items()))
    parts = [beside(one, estimate, width)]
    if one.phases:
        rows = [
            (
                PHASES.get(peak.phase, "another"),
                size(peak.peak_allocated_bytes),
                size(peak.peak_reserved_bytes),
            )
            for peak in one.phases
        ]
        found = table(("phase", "allocated", "reserved"), rows, width)
        parts.append(section("Peak by phase", found))
    if one.throughput:
        parts.append(_batch_sizes(one, width))
    if one.notes:
        parts.append(section("Notes", *listing(one.notes)))
    if versions:
        parts.append(section("Measured with", Text(versions)))
    if one.profile_id:
        job = f", job {one.job_digest}" if one.job_digest else ""
        parts.append(section("Stored as", Text(f"{one.profile_id}{job}")))
    return Group(*parts)


def page(one: MeasuredProfile, width: int) -> RenderableType:
    """A stored profile, below the job it is of."""
    return Group(job_title(one.job), profile(one, None, width))


def beside(one: MeasuredProfile, estimate: MemoryEstimate | None, width: int) -> RenderableType:
    """What was measured, next to what is estimated for the same micro-batch size."""
    comparable = estimate is not None and estimate.micro_batch_size == one.micro_batch_size
    return section(
        f"Measured on {_device(one)}, batch {one.micro_batch_size}",
        *map(Text, _outcome(one)),
        _comparison(one, estimate if comparable else None, width),
        *map(Text, _bound(one, estimate) if estimate is not None and comparable else ()),
        *map(Text, _speed(one)),
    )


def overview(profiles: Iterable[MeasuredProfile], width: int) -> RenderableType:
    """Stored profiles, one a line."""
    rows = [
        (
            one.profile_id,
            _time(one),
            _model(one),
            one.gpu_type or one.device_name,
            str(one.micro_batch_size),
            size(one.peak_reserved_bytes),
            "out of memory" if one.out_of_memory else _size_if_any(one.device_used_bytes),
        )
        for one in profiles
    ]
    headers = ("profile", "measured", "model", "device", "batch", "reserved", "device used")
    return table(headers, rows, width + INDENT, left=4, spare=("device used", "measured"))


def _comparison(
    one: MeasuredProfile, estimate: MemoryEstimate | None, width: int
) -> RenderableType:
    """Figures that were not measured (0) are left out."""
    rows = []
    for words, (measured, estimated) in _FIGURES.items():
        found = measured(one)
        if not found:
            continue
        row = [words, size(found)]
        if estimate is not None:
            expected = estimated(estimate)
            # What a run that failed took is no figure of the job: nothing to compare.
            off = "" if one.out_of_memory else f"{expected / found - 1:+.1%}"
            row += [size(expected), off]
        rows.append(row)
    headers = ("", "until then" if one.out_of_memory else "measured")
    return table(headers if estimate is None else (*headers, "estimated", "off by"), rows, width)


def _outcome(one: MeasuredProfile) -> list[str]:
    lines = []
    if one.out_of_memory:
        more = f" It asked for {size(one.requested_bytes)} more." if one.requested_bytes else ""
        lines.append(f"Out of memory: it needs more than {size(one.memory_limit_bytes)}.{more}")
    if one.device_type is DeviceType.CPU:
        lines.append("On the CPU: what tensors hold was run, what a GPU adds was not.")
    return lines


def _bound(one: MeasuredProfile, estimate: MemoryEstimate) -> list[str]:
    """Whether the upper bound held, where the driver's figure is there to tell."""
    if not one.device_used_bytes or not estimate.upper_bound_bytes or one.out_of_memory:
        return []
    held = "held" if one.device_used_bytes <= estimate.upper_bound_bytes else "was exceeded"
    return [f"The upper bound of {size(estimate.upper_bound_bytes)} {held}."]


def _speed(one: MeasuredProfile) -> list[str]:
    parts = []
    if one.step_time:
        spread = ""
        if one.step_time_p10 and one.step_time_p90:
            spread = f" ({_duration(one.step_time_p10)} to {_duration(one.step_time_p90)})"
        parts.append(f"{_duration(one.step_time)} a step{spread}")
    if one.samples_per_second:
        parts.append(f"{one.samples_per_second:,.1f} samples/s")
    if one.step_count:
        parts.append(f"{one.step_count} steps after {one.warmup_step_count} to warm up")
    return ["; ".join(parts)] if parts else []


def _batch_sizes(one: MeasuredProfile, width: int) -> RenderableType:
    rows = [
        (
            f"{point.micro_batch_size:,}",
            "out of memory" if point.out_of_memory else f"{point.samples_per_second:,.1f}",
            size(point.peak_reserved_bytes),
            _distinction(point, one),
        )
        for point in one.throughput
    ]
    return section(
        "Batch sizes", table(("batch", "samples/s", "reserved", "remark"), rows, width, left=0)
    )


def _distinction(point: ThroughputPoint, one: MeasuredProfile) -> str:
    names = {
        "largest that runs": one.largest_micro_batch_size,
        "fastest": one.fastest_micro_batch_size,
    }
    return ", ".join(name for name, batch in names.items() if batch == point.micro_batch_size)


def _device(one: MeasuredProfile) -> str:
    name = one.device_name or one.gpu_type or "an unknown device"
    known = f" ({one.gpu_type})" if one.gpu_type and one.gpu_type != name else ""
    host = f" of {one.host}" if one.host else ""
    when = f" on {_time(one)}" if one.create_time else ""
    return f"{name}{known}{host}{when}"


def _model(one: MeasuredProfile) -> str:
    catalog = one.job.model.catalog
    return catalog.name if catalog else "layer stack"


def _time(one: MeasuredProfile) -> str:
    return f"{one.create_time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if one.create_time else ""


def _duration(time: timedelta) -> str:
    seconds = time.total_seconds()
    return f"{seconds:.2f} s" if seconds >= 10 else f"{seconds * 1000:.1f} ms"


def _size_if_any(count: int) -> str:
    return size(count) if count else ""
