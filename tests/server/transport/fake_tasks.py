"""A tasks module for workers that does on demand what models do by accident.

The name of the job's model says what happens: `fake/hang`, `fake/kill`, ... Each trace leaves a
file in the folder that FAKE_TASKS_LOG names, so that tests can count them and wait for them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
import uuid
from pathlib import Path

import numpy as np

from memplan.types import TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.gpus.libraries import KERNEL_CLASSES, kernel_class
from memplan_server.timeline import Category, Module, Phase, Timeline

MIB = 1 << 20
SLOW_S = 0.5
NAMES = (
    "fake/attention",
    "fake/build-error",
    "fake/crash",
    "fake/defect",
    "fake/explode",
    "fake/gated",
    "fake/hang",
    "fake/kill",
    "fake/meeting",
    "fake/memory-once",
    "fake/ok",
    "fake/routed",
    "fake/slow",
)
_performed = 0


def initialize(memory_limit_bytes: int | None) -> None:
    """Bound the memory as the real one does."""
    if os.environ.get("FAKE_TASKS_START") == "fail":
        raise RuntimeError("no torch in /secret/place")
    if memory_limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))


def list_models() -> tuple[str, ...]:
    """All names there are."""
    _note("list_models")
    return NAMES


def trace(job: TrainingJob, compute_capability: tuple[int, int]) -> bytes:
    """Do what the model's name says, or return a small timeline."""
    global _performed
    _performed += 1
    name = job.model.catalog.name if job.model.catalog is not None else "fake/ok"
    _note(f"trace {name}")
    _misbehave(name.removeprefix("fake/"))
    return _timeline(job, compute_capability, name).to_bytes()


def pid() -> int:
    """The process of the worker."""
    return os.getpid()


def gate() -> Path:
    """`fake/gated` goes on when this file is there."""
    return Path(os.environ["FAKE_TASKS_GATE"])


def _note(text: str) -> None:
    if "FAKE_TASKS_LOG" in os.environ:
        Path(os.environ["FAKE_TASKS_LOG"], uuid.uuid4().hex).write_text(text)


def _misbehave(how: str) -> None:
    if how == "hang":
        time.sleep(3600)
    if how == "slow":
        time.sleep(SLOW_S)
    if how == "gated":
        while not gate().exists():
            time.sleep(0.01)
    if how == "meeting":  # all but the first go on when there are two of them
        log = Path(os.environ["FAKE_TASKS_LOG"])
        while len(list(log.iterdir())) == 2:
            time.sleep(0.01)
    if how == "explode":
        hoard = []
        while True:
            hoard.append(bytearray(16 * MIB))
    if how == "memory-once" and _performed > 1:
        raise MemoryError
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crash":
        ctypes.string_at(0)
    if how == "defect":
        raise RuntimeError("at /secret/place/model.py line 7")
    if how == "build-error":
        reason = InvalidJob(Violation("job.model", "The model cannot be built: no."))
        raise reason from ValueError("at /secret/place/model.py line 7")


def _timeline(job: TrainingJob, capability: tuple[int, int], name: str) -> Timeline:
    """A parameter and a gradient of 1 MiB, and activations of 1 MiB a sample, in two steps."""
    steps = 2
    events, phase, step = [0], [Phase.SETUP], [0]
    for index in range(steps):
        gradient, activation = 1 + 2 * index, 2 + 2 * index
        for event, at in (
            (activation, Phase.FORWARD),
            (gradient, Phase.BACKWARD),
            (~activation, Phase.BACKWARD),
            (~gradient, Phase.OPTIMIZER_STEP),
        ):
            events.append(event)
            phase.append(at)
            step.append(index)
    affine = name != "fake/routed"
    fixed = np.array([MIB, MIB, 0, MIB, 0], np.int64)
    slope = np.array([0, 0, MIB, 0, MIB], np.int64)
    if not affine:
        fixed, slope = fixed + slope * job.micro_batch_size, slope * 0
    depends = name in ("fake/attention", "fake/meeting")
    return Timeline(
        events=np.array(events, np.int32),
        phase=np.array(phase, np.uint8),
        step=np.array(step, np.uint8),
        intercept=fixed,
        slope=slope,
        category=np.array(
            [Category.PARAMETER, *[Category.GRADIENT, Category.ACTIVATION] * steps], np.uint8
        ),
        module=np.zeros(5, np.int32),
        micro_step=np.zeros(5, np.uint8),
        modules=(Module("", "Fake"),),
        parameter_count=MIB // 4,
        parameter_bytes=MIB,
        gradient_bytes=MIB,
        affine=affine,
        traced_batch_sizes=(4, 6) if affine else (job.micro_batch_size,),
        kernel_classes=(kernel_class(capability),) if depends else KERNEL_CLASSES,
        traits=("matrix_product",),
        library_versions={"torch": "0"},
    )
