"""The memory estimate: the timeline replayed at one batch size, and taken apart at its peak."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memplan.types import (
    GpuType,
    MemoryBreakdown,
    MemoryEstimate,
    ModelState,
    ModuleMemory,
    TrainingJob,
)
from memplan.types import Phase as PublicPhase
from memplan_server.allocator import Replay, Unlimited
from memplan_server.gpus.context import context_bytes
from memplan_server.gpus.libraries import workspaces
from memplan_server.planning.learned import NOTHING_LEARNED, Learned
from memplan_server.planning.targets import Timelines, run
from memplan_server.planning.uncertainty import CONFIDENCE, bounds, held_confidence
from memplan_server.timeline import Category, Int64, Phase, Timeline

__all__ = ["alive_after", "estimate_memory"]

_PHASES = {
    Phase.SETUP: PublicPhase.FORWARD,
    Phase.FORWARD: PublicPhase.FORWARD,
    Phase.BACKWARD: PublicPhase.BACKWARD,
    Phase.OPTIMIZER_STEP: PublicPhase.OPTIMIZER_STEP,
}
_TOP_MODULES = 10


def estimate_memory(
    timelines: Timelines,
    job: TrainingJob,
    gpu_type: GpuType,
    *,
    confidence: float = CONFIDENCE,
    learned: Learned = NOTHING_LEARNED,
) -> MemoryEstimate:
    """The memory the job takes at its micro-batch size on this GPU type."""
    timeline = timelines.get(job, gpu_type).with_workspaces(workspaces(gpu_type))
    gpu_type = replace(gpu_type, context_bytes=context_bytes(gpu_type, timeline.traits))
    result = _replayed(timeline, job, gpu_type)
    device_used = result.peak_reserved_bytes + gpu_type.context_bytes
    sizes = timeline.sizes(job.micro_batch_size)
    tensors = Unlimited(timeline.events).peak_allocated_bytes(sizes)
    limits = bounds(timeline, gpu_type, tensors, result.peak_reserved_bytes, confidence, learned)
    alive = alive_after(timeline, result.peak_event)
    return MemoryEstimate(
        gpu_type=gpu_type.name,
        micro_batch_size=job.micro_batch_size,
        peak_allocated_bytes=result.peak_allocated_bytes,
        peak_reserved_bytes=result.peak_reserved_bytes,
        device_used_bytes=device_used,
        upper_bound_bytes=limits.upper_bytes,
        lower_bound_bytes=limits.lower_bytes,
        confidence=held_confidence(confidence),
        peak_phase=_PHASES[Phase(int(timeline.phase[result.peak_event]))],
        breakdown=_breakdown(timeline, sizes * alive, result, gpu_type),
        model_state=_model_state(timeline),
        top_modules=_top_modules(timeline, sizes * alive),
        assumptions=timeline.assumptions,
        library_versions=timeline.library_versions,
    )


def _replayed(timeline: Timeline, job: TrainingJob, gpu_type: GpuType) -> Replay:
    """Without a limit, unless the job runs only because the GPU's limit makes room."""
    free = run(timeline, job.micro_batch_size, job.allocator)
    room = gpu_type.usable_bytes - gpu_type.context_bytes
    if free.peak_reserved_bytes <= room or free.peak_allocated_bytes > room:
        return free
    limited = run(timeline, job.micro_batch_size, job.allocator, room_bytes=room)
    return free if limited.out_of_memory_event is not None else limited


def alive_after(timeline: Timeline, event: int) -> Int64:
    """[m] 1 for each storage that is alive right after this event, else 0.

    A storage may be made again after it was freed.
    """
    past = timeline.events[: event + 1]
    made = np.bincount(past[past >= 0], minlength=len(timeline.intercept))
    freed = np.bincount(~past[past < 0], minlength=len(timeline.intercept))
    return made - freed


def _breakdown(
    timeline: Timeline, held: Int64, result: Replay, gpu_type: GpuType
) -> MemoryBreakdown:
    """`held`: [m] bytes each storage holds at the peak; blocks and segments add the rest."""
    by_category = np.zeros(len(Category), np.int64)
    np.add.at(by_category, timeline.category, held)
    named = {f"{c.name.lower()}_bytes": int(by_category[c]) for c in Category}
    return MemoryBreakdown(
        **named,
        context_bytes=gpu_type.context_bytes,
        fragmentation_bytes=result.peak_reserved_bytes - int(held.sum()),
    )


def _model_state(timeline: Timeline) -> ModelState:
    return ModelState(
        parameter_count=timeline.parameter_count,
        parameter_bytes=timeline.parameter_bytes,
        gradient_bytes=timeline.gradient_bytes,
        optimizer_state_bytes=timeline.optimizer_state_bytes,
        buffer_bytes=timeline.buffer_bytes,
    )


def _top_modules(timeline: Timeline, held: Int64) -> tuple[ModuleMemory, ...]:
    counted = (timeline.category == Category.ACTIVATION) & (timeline.module >= 0)
    totals = np.zeros(len(timeline.modules), np.int64)
    np.add.at(totals, timeline.module[counted], held[counted])
    largest = np.argsort(-totals, kind="stable")[:_TOP_MODULES]
    return tuple(
        ModuleMemory(
            module=timeline.modules[i].path,
            type=timeline.modules[i].type,
            activation_bytes=int(totals[i]),
        )
        for i in largest
        if totals[i]
    )
