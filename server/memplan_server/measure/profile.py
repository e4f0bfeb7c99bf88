"""A job measured for a profile. The inside of a child process.

    Child("memplan_server.measure.profile:profile", request, reporting=True)

On CUDA the job runs as it is. On the CPU it runs at the largest batch size that fits the time and
memory there are, and what its tensors take is replayed through the model of CUDA's allocator.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from memplan.types import MemoryPoint, PhasePeak, ProfileStage, TrainingJob
from memplan_server.errors import InvalidJob, LimitExceeded, NoDevice
from memplan_server.measure import cuda
from memplan_server.measure.child_process import STARTED
from memplan_server.measure.curve import Replayed, curve_of, replay_events
from memplan_server.measure.events import Events
from memplan_server.measure.measurement import OutOfMemory
from memplan_server.measure.profiled import Profiled
from memplan_server.measure.request import Progress, Report, Request
from memplan_server.measure.run import Outcome, run
from memplan_server.models.explained import first_line
from memplan_server.timeline import Phase

__all__ = ["ON_THE_CPU", "largest_affordable", "profile"]

ON_THE_CPU = (
    "Measured on the CPU: the training loop was really executed, and what its tensors take was "
    "recorded and replayed through the model of PyTorch's CUDA allocator.",
    "That shows parameters, gradients, optimizer states, activations and temporaries. It does not "
    "show kernel workspaces, the CUDA context, the kernels that a GPU picks (attention, dropout "
    "and RNNs have others) or times on a GPU.",
)
_SHARE_OF_TIME = 0.8
"""The rest is for the start of the process, and for steps that take longer than the first."""
_SHARE_OF_MEMORY = 0.8
_FIRST_BATCH = 2
"""Batch normalisation needs two samples where an image has shrunk to a point."""
_NICENESS = 10
_HOST_ALLOCATOR = "DefaultCPUAllocator"
_NO_KERNEL = "not implemented for"
_BUSY = "busy or unavailable"
_RETRY_AFTER_S = 30.0


def profile(request: Request, report: Report) -> Profiled:
    """Measure a normalised job.

    Raises `InvalidJob` for one that cannot run, `NoDevice` where this PyTorch cannot use the device
    or has no kernel for it, and `LimitExceeded` when the host's memory is too small.
    """
    report(Progress(stage=ProfileStage.BUILDING, micro_batch_size=request.job.micro_batch_size))
    if request.time_limit_s:  # importing torch has taken a part
        left = request.time_limit_s - (time.monotonic() - STARTED)
        request = replace(request, time_limit_s=max(0.1, left))
    return (_on_the_cpu if request.device_type == "cpu" else _on_cuda)(request, report)


def _on_cuda(request: Request, report: Report) -> Profiled:
    why = cuda.why_not_available()
    if why:
        raise NoDevice(why)
    try:
        outcome = run(replace(request, history=True), report=report)
    except RuntimeError as error:  # CUDA does not start, or the driver is gone: not the job's fault
        busy = cuda.is_out_of_memory(error) or _BUSY in str(error)
        said = f"The GPU cannot be used: {first_line(error)}"
        raise LimitExceeded(said, _RETRY_AFTER_S) if busy else NoDevice(said) from error
    seen, notes = outcome.seen, _said(outcome.measurement.notes)
    curve: tuple[MemoryPoint, ...] = ()
    if seen.history is not None and seen.events is not None:
        curve = curve_of(seen.history, seen.events)
    elif seen.lost:
        notes += (f"There is no curve: {seen.lost}.",)
    return _profiled(request, outcome, curve=curve, phases=outcome.phases, notes=notes)


def _on_the_cpu(request: Request, report: Report) -> Profiled:
    """Try a small batch first; of the job's batch what then looks affordable."""
    os.nice(_NICENESS)
    started = time.monotonic()
    wanted = request.job.micro_batch_size
    small = _at(request, min(wanted, _FIRST_BATCH))
    if wanted <= _FIRST_BATCH or _holds_for_one_batch_size(request.job):
        return _replayed(request, _execute(_at(request, wanted), report))
    first = _execute(replace(small, warmup_steps=0, steps=1), report)
    left = request.time_limit_s * _SHARE_OF_TIME - (time.monotonic() - started)
    size = largest_affordable(request, first, left)
    while True:
        chosen = replace(_at(request, size), time_limit_s=max(left, 1.0))
        try:
            return _replayed(request, _execute(chosen, report))
        except LimitExceeded:
            if size <= _FIRST_BATCH:
                raise
            size //= 2


def _holds_for_one_batch_size(job: TrainingJob) -> bool:
    """A captured graph may: smaller batches say nothing about it then."""
    return job.model.graph is not None and job.model.graph.fixed_batch_size > 0


def largest_affordable(request: Request, first: Outcome, left_s: float) -> int:
    """The largest batch size, the job's or a power of two below, for which there are time and
    memory, by a run of one step at a small batch size."""
    measured, events = first.measurement, first.seen.events
    assert measured.step_seconds is not None
    assert events is not None
    small = min(request.job.micro_batch_size, _FIRST_BATCH)
    steps = request.warmup_steps + request.steps
    model = sum(events.sizes[e] for e in events.events[: events.sections[1].start] if e >= 0)
    a_sample = max(1, measured.peak_allocated_bytes - model) / small
    room = (request.host_memory_bytes or _available_bytes()) * _SHARE_OF_MEMORY
    by_memory = (room - measured.peak_allocated_bytes) / a_sample
    by_time = left_s / (steps * measured.step_seconds.median / small)
    affordable = max(0, int(min(by_memory, by_time)))  # the first run may have taken all there is
    if affordable >= request.job.micro_batch_size:
        return request.job.micro_batch_size
    return max(small, 1 << max(0, affordable.bit_length() - 1))


def _available_bytes() -> int:
    """Memory that the host can give (Linux); half of what is there where it does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) << 10 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _at(request: Request, micro_batch_size: int) -> Request:
    return replace(
        request, history=True, job=replace(request.job, micro_batch_size=micro_batch_size)
    )


def _execute(request: Request, report: Report) -> Outcome:
    """Run; what the host has no memory or no kernel for is said so."""
    try:
        return run(request, report=report)
    except MemoryError:
        pass
    except InvalidJob as error:
        said = str(error.__cause__)
        if _NO_KERNEL in said:
            raise NoDevice(
                f"This job cannot be executed on a CPU ({said}). Ask for a CUDA GPU."
            ) from None
        if _HOST_ALLOCATOR not in said and not isinstance(error.__cause__, MemoryError):
            raise
    raise LimitExceeded(
        f"The host has too little memory to execute this job at batch size "
        f"{request.job.micro_batch_size}. Ask for a CUDA GPU, or describe a smaller job."
    )


def _replayed(request: Request, outcome: Outcome) -> Profiled:
    """Peaks of the CUDA allocator's model, within the limit asked for."""
    assert outcome.seen.events is not None
    events = _without_step_counts(outcome.seen.events)
    limit = request.memory_limit_bytes
    capacity = max(0, limit - request.context_bytes) if limit else None
    found = replay_events(events, request.job.allocator, capacity)
    measurement = replace(
        outcome.measurement,
        peak_allocated_bytes=found.peak_allocated_bytes,
        peak_reserved_bytes=found.peak_reserved_bytes,
        out_of_memory=_failure(found),
        step_seconds=None,
    )
    return _profiled(
        request,
        replace(outcome, measurement=measurement),
        curve=found.curve,
        phases=found.phases,
        notes=(*ON_THE_CPU, *_said(measurement.notes)),
    )


def _without_step_counts(events: Events) -> Events:
    """Optimizers count steps in tensors of the host, which are not the GPU's."""
    counts = {
        event
        for section, start, end in events.spans()
        if section.phase is Phase.OPTIMIZER_STEP
        for event in events.events[start:end]
        if event >= 0 and events.operators[event] == "lift_fresh"
    }
    sizes = [0 if index in counts else size for index, size in enumerate(events.sizes)]
    return replace(events, sizes=sizes)


def _failure(found: Replayed) -> OutOfMemory | None:
    if found.failed is None:
        return None
    return OutOfMemory(
        requested_bytes=found.requested_bytes,
        phase=found.failed.phase.name.lower(),
        step=found.failed.step,
    )


def _profiled(
    request: Request,
    outcome: Outcome,
    *,
    curve: tuple[MemoryPoint, ...],
    phases: tuple[PhasePeak, ...],
    notes: tuple[str, ...],
) -> Profiled:
    size = outcome.micro_batch_size
    if size != request.job.micro_batch_size:
        notes += (
            f"Batch size {size:,} was run instead of {request.job.micro_batch_size:,}, to be done "
            "in time and in the host's memory.",
        )
    if outcome.timed_steps < request.steps and outcome.measurement.out_of_memory is None:
        notes += (f"{outcome.timed_steps} of {request.steps} steps fit the time limit.",)
    return Profiled(
        measurement=outcome.measurement,
        micro_batch_size=size,
        warmup_step_count=request.warmup_steps,
        step_count=outcome.timed_steps,
        memory_limit_bytes=outcome.memory_limit_bytes or request.memory_limit_bytes,
        phases=phases,
        curve=curve,
        notes=notes,
    )


def _said(notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{note[:1].upper()}{note[1:]}." for note in notes)
