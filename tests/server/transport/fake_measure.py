"""Measures on demand what jobs do by accident: the name of the job's model says what happens.

Without torch, so that a process is there in no time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from memplan.types import MemoryPoint, ProfileStage
from memplan_server.errors import InvalidJob, Violation
from memplan_server.measure.measurement import Gpu, Measurement, OutOfMemory, StepSeconds
from memplan_server.measure.profiled import Profiled
from memplan_server.measure.request import Progress, Report, Request

MIB = 1 << 20
ROOM, KNEE = 1000, 300


def measure(request: Request, report: Report) -> Profiled:
    """Misbehave as the model's name says, or return a profile."""
    assert request.job.model.catalog is not None
    size = request.job.micro_batch_size
    report(Progress(stage=ProfileStage.BUILDING, micro_batch_size=size))
    _misbehave(request.job.model.catalog.name.removeprefix("fake/"))
    total = request.warmup_steps + request.steps
    for step in range(total + 1):
        stage = ProfileStage.MEASURING if step >= request.warmup_steps else ProfileStage.WARMING_UP
        report(
            Progress(
                stage=stage,
                micro_batch_size=size,
                step=step,
                step_count=total,
                peak_allocated_bytes=size * MIB,
            )
        )
    on_gpu = _on_gpu(size) if request.device_type == "cuda" else {}
    return Profiled(
        measurement=Measurement(
            device_type=request.device_type,
            gpu=Gpu(name="made up", driver_version="595.1"),
            library_versions={"torch": "2.0", "visible": os.environ["CUDA_VISIBLE_DEVICES"]},
            peak_allocated_bytes=size * MIB,
            peak_reserved_bytes=size * 2 * MIB,
            **on_gpu,
        ),
        micro_batch_size=size,
        warmup_step_count=request.warmup_steps,
        step_count=request.steps,
        memory_limit_bytes=request.memory_limit_bytes,
        curve=(MemoryPoint(event=7, allocated_bytes=size * MIB),),
        notes=("Made up.",),
    )


def _on_gpu(size: int) -> dict[str, Any]:
    """A GPU with room for `ROOM` samples, on which batches of `KNEE` are as fast as any."""
    if size > ROOM:
        return {"out_of_memory": OutOfMemory(requested_bytes=7, phase="forward", step=0)}
    seconds = max(size, KNEE) / 1000
    return {
        "step_seconds": StepSeconds(median=seconds, p10=seconds / 2, p90=seconds * 2),
        "context_before_bytes": 400 * MIB,
        "context_after_bytes": 500 * MIB,
        "device_used_bytes": 600 * MIB,
    }


def _misbehave(how: str) -> None:
    if how == "hang":
        subprocess.Popen(["sleep", "3600"])  # what it has started goes with it
        time.sleep(3600)
    if how == "gated":
        while not Path(os.environ["FAKE_TASKS_GATE"]).exists():
            time.sleep(0.01)
    if how == "crash":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "defect":
        raise RuntimeError("secret")
    if how == "build-error":
        raise InvalidJob(Violation("job.model", "The model cannot be built: no."))
