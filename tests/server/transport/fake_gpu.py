"""Measures as a GPU on which jobs of `fake_tasks` take a share more or less than is estimated.

FAKE_GPU_SHARE says how much they take of the estimate; above the memory limit they run out.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from fake_measure import measure as on_the_cpu

from memplan.types import CatalogModel, Model
from memplan_server.measure.measurement import Gpu, Measurement, OutOfMemory
from memplan_server.measure.profiled import Profiled
from memplan_server.measure.request import Report, Request

MIB = 1 << 20
GIB = 1 << 30
CONTEXT_BYTES = 740 * MIB  # the catalog's for the H100
CARD_BYTES = 79 * GIB


def measure(request: Request, report: Report) -> Profiled:
    """What such a GPU shows."""
    found = on_the_cpu(request, report)
    if request.device_type != "cuda":
        return found
    size = request.job.micro_batch_size
    limit = request.memory_limit_bytes or CARD_BYTES
    reserved = int((size + 2) * MIB * float(os.environ.get("FAKE_GPU_SHARE", "1")))
    fits = reserved + CONTEXT_BYTES <= limit
    return Profiled(
        measurement=Measurement(
            device_type="cuda",
            gpu=Gpu(name="made up", driver_version="595.1"),
            library_versions={"torch": "2.0"},
            peak_allocated_bytes=min(reserved, limit - CONTEXT_BYTES),
            peak_reserved_bytes=min(reserved, limit - CONTEXT_BYTES),
            **(_driver(reserved) if fits else _failure(reserved + CONTEXT_BYTES - limit)),
        ),
        micro_batch_size=size,
        warmup_step_count=request.warmup_steps,
        step_count=request.steps if fits else 0,
        memory_limit_bytes=limit,
    )


def _driver(reserved: int) -> dict[str, Any]:
    return {
        "context_before_bytes": 400 * MIB,
        "context_after_bytes": CONTEXT_BYTES,
        "device_used_bytes": reserved + CONTEXT_BYTES,
    }


def _failure(missing: int) -> dict[str, Any]:
    return {"out_of_memory": OutOfMemory(requested_bytes=missing, phase="forward", step=0)}


def measure_hang(request: Request, report: Report) -> Profiled:
    """Measure nothing, for ever."""
    return on_the_cpu(_misbehaving(request, "hang"), report)


def measure_crash(request: Request, report: Report) -> Profiled:
    """Die."""
    return on_the_cpu(_misbehaving(request, "crash"), report)


def measure_defect(request: Request, report: Report) -> Profiled:
    """Raise what must not be shown."""
    return on_the_cpu(_misbehaving(request, "defect"), report)


def measure_build_error(request: Request, report: Report) -> Profiled:
    """Find that the model cannot be built."""
    return on_the_cpu(_misbehaving(request, "build-error"), report)


def _misbehaving(request: Request, how: str) -> Request:
    """Planning must not misbehave, so that it is not the model's name that says so."""
    named = Model(catalog=CatalogModel(name=f"fake/{how}"))
    return replace(request, job=replace(request.job, model=named))
