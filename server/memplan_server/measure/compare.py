"""A job run on a GPU and simulated for it, compared event by event. Imports no torch.

    comparison = compare(job, catalog)

The job runs in processes of their own: once undisturbed, with the allocator's history on, which is
what is compared; once more under a dispatch mode that tells the operator of each allocation. Frames
that the allocator can record would name Python lines, and in backward, which runs without Python,
nothing; C++ frames take minutes to resolve. The mode changes a run a little, so its names are
carried over to the undisturbed one by alignment, and how much it changed is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memplan.types import GpuType, TrainingJob
from memplan_server.allocator import replay
from memplan_server.errors import LimitExceeded, MemplanError, UnknownName
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.measure.child import WITHOUT_GPU, Child, in_child
from memplan_server.measure.comparison import EventComparison, compare_events, names_from
from memplan_server.measure.events import Events
from memplan_server.measure.history import History, ReplayedHistory, replay_history
from memplan_server.measure.measurement import Gpu, Measurement
from memplan_server.measure.request import Request

if TYPE_CHECKING:
    from memplan_server.measure.run import Outcome
    from memplan_server.measure.simulated import Simulated

__all__ = ["Comparison", "NoCudaDevice", "Peaks", "check_cuda", "compare", "gpu_type_of"]

_RUN = "memplan_server.measure.run:run"
_SIMULATE = "memplan_server.measure.simulated:simulate"
_WHY_NO_CUDA = "memplan_server.measure.cuda:why_not_available"
_STEPS = 2


class NoCudaDevice(MemplanError):
    """There is no GPU to run the job on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """Bytes."""

    peak_allocated_bytes: int
    peak_reserved_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A job's measured and simulated allocations."""

    gpu_type: str
    """The GPU type simulated."""
    gpu: Gpu
    """The device measured on."""
    library_versions: dict[str, str]
    measured: Peaks
    """From the allocator's counters; for a run on the CPU, its events replayed."""
    simulated: Peaks
    events: EventComparison
    replayed: ReplayedHistory | None
    """The measured events replayed through our allocator; None for a run on the CPU."""
    changed_by_naming: int
    """Allocations in which the run that told operators differs from the undisturbed one."""
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]


def compare(
    job: TrainingJob, catalog: GpuCatalog, *, device_type: str = "cuda", gpu_type: str = ""
) -> Comparison:
    """Run a normalised job for two steps and compare. `gpu_type` is simulated; "": the device's.

    Raises `NoCudaDevice`, `LimitExceeded` when the job runs out of memory, and what a run or a
    simulation raises.
    """
    if device_type == "cuda":
        check_cuda()
    plain = _run(job, device_type, operators=False)
    target = catalog.get(gpu_type) if gpu_type else gpu_type_of(plain.measurement.gpu, catalog)
    simulating = Child(_SIMULATE, job, target, environment=WITHOUT_GPU)
    with simulating.ended() as simulation:  # beside the second run
        named = plain if device_type == "cpu" else _run(job, device_type, operators=True)
        simulated: Simulated = simulation.result()
    assert plain.seen.events is not None
    assert named.seen.events is not None
    events, changed = names_from(plain.seen.events, named.seen.events)
    history = plain.seen.history
    return Comparison(
        gpu_type=target.name,
        gpu=plain.measurement.gpu,
        library_versions=dict(plain.measurement.library_versions),
        measured=_measured(plain.measurement, events),
        simulated=Peaks(
            peak_allocated_bytes=simulated.peak_allocated_bytes,
            peak_reserved_bytes=simulated.peak_reserved_bytes,
        ),
        events=compare_events(events, simulated.events),
        replayed=_replayed(job, plain.measurement, history) if history else None,
        changed_by_naming=changed,
        assumptions=simulated.assumptions,
        notes=plain.measurement.notes,
    )


def check_cuda() -> None:
    """Raise `NoCudaDevice`, saying why, when a job cannot run on a GPU here."""
    why = in_child(_WHY_NO_CUDA)
    if why:
        raise NoCudaDevice(why)


def gpu_type_of(gpu: Gpu, catalog: GpuCatalog) -> GpuType:
    """The catalog's entry for a device; one made from what the device says where there is none."""
    try:
        return catalog.get(gpu.name)
    except UnknownName:
        return GpuType(
            name=gpu.name,
            total_bytes=gpu.total_bytes,
            usable_bytes=gpu.usable_bytes,
            compute_capability=gpu.compute_capability or "8.0",
            multiprocessor_count=gpu.multiprocessor_count,
        )


def _run(job: TrainingJob, device_type: str, *, operators: bool) -> Outcome:
    request = Request(
        job=job,
        device_type=device_type,
        warmup_steps=0,
        steps=_STEPS,
        micro_steps=min(2, max(1, job.loop.accumulation_steps)),
        history=True,
        operators=operators,
    )
    outcome: Outcome = in_child(_RUN, request)
    failed = outcome.measurement.out_of_memory
    if failed is not None:
        raise LimitExceeded(
            f"The job ran out of memory in {failed.phase} of step {failed.step}; compare it with a "
            "smaller batch."
        )
    if outcome.seen.lost:
        raise LimitExceeded(f"The job cannot be compared: {outcome.seen.lost}.")
    return outcome


def _measured(measurement: Measurement, events: Events) -> Peaks:
    if measurement.peak_reserved_bytes is not None:
        return Peaks(
            peak_allocated_bytes=measurement.peak_allocated_bytes,
            peak_reserved_bytes=measurement.peak_reserved_bytes,
        )
    result = replay(events.events, np.array(events.sizes, np.int64))
    return Peaks(
        peak_allocated_bytes=result.peak_allocated_bytes,
        peak_reserved_bytes=result.peak_reserved_bytes,
    )


def _replayed(job: TrainingJob, measurement: Measurement, history: History) -> ReplayedHistory:
    """With the room that there was, where the allocator had to give segments back."""
    room = None
    if measurement.allocator_retries:
        room = measurement.gpu.usable_bytes - (measurement.context_after_bytes or 0)
    return replay_history(history, job.allocator, room, empties_cache=job.cudnn_benchmark)
