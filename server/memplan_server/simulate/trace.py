"""A job's timeline: the training loop executed twice on the simulated GPU, at two batch sizes.

The size of every storage is affine in the batch size and the sequence of events does not depend on
it, so two executions give the timeline at every batch size. Where the sequences differ, the
timeline holds for the one batch size asked for, and says so.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from memplan.fakes import hardware, known, routing
from memplan.types import DataParallelStrategy, GraphInput, InputTensor, TrainingJob
from memplan_server.models import BuiltModel
from memplan_server.simulate import (
    attention,
    autocast,
    detection,
    device,
    flash,
    placing,
)
from memplan_server.simulate.recorder import Recorder, Recording
from memplan_server.timeline import Category, Int64, Module, Phase, Timeline, UInt8
from memplan_server.training import Loop, optimizers, prepare
from memplan_server.training.pieces import local
from memplan_server.training.stated import batch_of

if TYPE_CHECKING:
    from memplan_server.simulate.placing import Whole
    from memplan_server.simulate.sharding import Sharded

__all__ = ["BATCH_SIZES", "execute", "trace_affine", "trace_at"]

BATCH_SIZES = (4, 6)
"""The two batch sizes executed. Above 1 (size-1 dimensions are special) and even (some models pair
samples)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """One execution of the loop."""

    batch_size: int
    recording: Recording
    parameter_bytes: int
    gradient_bytes: int
    optimizer_state_bytes: int
    """Of this rank."""


def trace_affine(job: TrainingJob, built: BuiltModel, gpu: tuple[int, int]) -> Timeline | None:
    """The timeline at every batch size, or None when the events depend on the batch size."""
    if built.fixed_batch_size or built.per_sample:
        return None
    prepare(job, built.module)
    first, second = (execute(job, built, gpu, batch_size) for batch_size in BATCH_SIZES)
    if not _same_events(first.recording, second.recording):
        return None
    sizes = [np.array([s.nbytes for s in e.recording.storages], np.int64) for e in (first, second)]
    slope, rest = np.divmod(sizes[1] - sizes[0], second.batch_size - first.batch_size)
    intercept = sizes[0] - slope * first.batch_size
    if rest.any() or (intercept < 0).any():  # below 0: it grows faster than the batch size
        return None
    return _assemble(job, built, first, intercept, slope, affine=True)


def trace_at(
    job: TrainingJob,
    built: BuiltModel,
    gpu: tuple[int, int],
    batch_size: int,
    recorder: Recorder | None = None,
) -> Timeline:
    """The timeline at this batch size only; `recorder` is one of its own that writes down more."""
    prepare(job, built.module)
    done = execute(job, built, gpu, batch_size, recorder)
    sizes = np.array([s.nbytes for s in done.recording.storages], np.int64)
    return _assemble(job, built, done, sizes, np.zeros_like(sizes), affine=False)


def execute(
    job: TrainingJob,
    built: BuiltModel,
    gpu: tuple[int, int],
    batch_size: int,
    recorder: Recorder | None = None,
) -> Execution:
    """Set the model up on the simulated GPU and run two training steps."""
    simulated = device.register()
    recorder = recorder or Recorder(simulated, cudnn_benchmark=job.cudnn_benchmark)
    attention.target(gpu)
    routing.route(job.assumptions.routing)
    recorder.conditions = not job.assumptions.conditions_are_false
    model = _model(job, built, simulated)
    built = replace(built, module=model.module)
    autocast.on_weight_cast(lambda copy: recorder.mark([copy], Category.AUTOCAST_COPY))
    with (
        _collected_by_step(),
        hardware.as_on_hardware(),
        flash.stands_in(),
        detection.described(),
        autocast.cleared_with_pytorchs(),
        placing.restored(built.module),
        model.followed(recorder),
        recorder,
        _modules_followed(recorder, built.module),
    ):
        recorder.enter(Phase.SETUP, 0)
        model.place(recorder, simulated)
        loop = Loop(
            job=job,
            built=built,
            observer=recorder,
            device=simulated,
            batch_size=batch_size,
            micro_steps=min(2, max(1, job.loop.accumulation_steps)),
            data=_StatedData(built, batch_size),
        )
        optimizer = loop.run()
        recorder.close()
        return _executed(loop, optimizer, recorder.recording)


def _executed(loop: Loop, optimizer: torch.optim.Optimizer, recording: Recording) -> Execution:
    parameters = list(loop.built.module.parameters())
    states = map(local, optimizers.state_tensors(optimizer))
    on_gpu = {t.untyped_storage()._cdata: _nbytes(t) for t in states if t.device == loop.device}
    return Execution(
        batch_size=loop.batch_size,
        recording=recording,
        parameter_bytes=sum(local(p).nbytes for p in parameters),
        gradient_bytes=sum(local(p).nbytes for p in parameters if p.requires_grad),
        optimizer_state_bytes=sum(on_gpu.values()),
    )


def _model(job: TrainingJob, built: BuiltModel, simulated: torch.device) -> Whole | Sharded:
    if job.data_parallel.strategy is not DataParallelStrategy.FSDP:
        return placing.Whole(built.module)
    from memplan_server.simulate.sharding import Sharded  # which takes long to import

    return Sharded(job, built.module, simulated.type)


@dataclass(frozen=True, slots=True)
class _StatedData:
    """Data of which only that is there which the job states."""

    built: BuiltModel
    batch_size: int

    def fill_input(self, spec: InputTensor | GraphInput, tensor: torch.Tensor) -> None:
        with _disable_current_modes():
            values = batch_of(self.built, spec, self.batch_size)
        if values is not None:
            said = self.built.stated[spec.name].assumption
            known.state(tensor, values.to(tensor.dtype), [said])

    def fill_target(self, tensor: torch.Tensor, classes: int | None) -> None:
        """Nothing is known of targets that the loop makes itself."""


@contextlib.contextmanager
def _collected_by_step() -> Iterator[None]:
    """Garbage is collected where the loop asks for it and nowhere else, and only what is new."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


@contextlib.contextmanager
def _modules_followed(recorder: Recorder, model: nn.Module) -> Iterator[None]:
    """Keep `recorder.module` at the innermost module whose forward runs."""
    index = {id(module): i for i, module in enumerate(model.modules())}
    outer: list[int] = []

    def enter(module: nn.Module, _: object) -> None:
        outer.append(recorder.module)
        recorder.module = index.get(id(module), recorder.module)

    def leave(module: nn.Module, _: object, __: object) -> None:
        recorder.module = outer.pop()

    hooks = nn.modules.module
    handles = [
        hooks.register_module_forward_pre_hook(enter),
        hooks.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _same_events(first: Recording, second: Recording) -> bool:
    same_places = [s.micro_step for s in first.storages] == [s.micro_step for s in second.storages]
    same_calls = [s.workspace for s in first.storages] == [s.workspace for s in second.storages]
    same = (
        first.events == second.events
        and first.marks == second.marks
        and first.cache_emptied == second.cache_emptied
    )
    return same and same_places and same_calls


def _assemble(
    job: TrainingJob,
    built: BuiltModel,
    done: Execution,
    intercept: Int64,
    slope: Int64,
    *,
    affine: bool,
) -> Timeline:
    recording, storages = done.recording, done.recording.storages
    phase, step = _phases(recording)
    parameters = list(built.module.parameters())
    return Timeline(
        events=np.array(recording.events, np.int32),
        phase=phase,
        step=step,
        intercept=intercept,
        slope=slope,
        category=_categories(recording, phase),
        module=np.array([s.module for s in storages], np.int32),
        micro_step=np.array([s.micro_step for s in storages], np.uint8),
        stream=streams if any(streams := tuple(s.stream for s in storages)) else (),
        cache_emptied=tuple(recording.cache_emptied),
        modules=tuple(Module(n, type(m).__name__) for n, m in built.module.named_modules()),
        convolutions=tuple(recording.convolutions),
        kernels=tuple(recording.kernels),
        workspaces={i: s.workspace for i, s in enumerate(storages) if s.workspace},
        parameter_count=sum(p.numel() for p in parameters),
        parameter_bytes=done.parameter_bytes,
        gradient_bytes=done.gradient_bytes,
        optimizer_state_bytes=done.optimizer_state_bytes,
        buffer_bytes=sum(b.nbytes for b in built.module.buffers()),
        micro_steps=min(2, max(1, job.loop.accumulation_steps)),
        affine=affine,
        traced_batch_sizes=BATCH_SIZES if affine else (done.batch_size,),
        traits=_traits(job, recording, built.module),
        kernel_classes=attention.same_choices(),
        assumptions=tuple(dict.fromkeys((*built.assumptions, *recording.assumptions))),
    )


def _phases(recording: Recording) -> tuple[UInt8, UInt8]:
    """Phase and training step of each event, from where they begin."""
    starts = [start for start, _, _ in recording.marks]
    lengths = np.diff([*starts, len(recording.events)])
    phase = np.repeat(np.array([p for _, p, _ in recording.marks], np.uint8), lengths)
    step = np.repeat(np.array([s for _, _, s in recording.marks], np.uint8), lengths)
    return phase, step


def _categories(recording: Recording, phase: UInt8) -> UInt8:
    """What each storage is for. What forward makes and does not outlive it is temporary."""
    category = np.array([s.category for s in recording.storages], np.uint8)
    born = np.zeros(len(category), np.int64)
    segment = np.cumsum(np.diff(phase, prepend=phase[:1]) != 0)
    for position, event in enumerate(recording.events):
        if event >= 0:
            born[event] = position
        elif segment[born[~event]] == segment[position] and category[~event] == Category.ACTIVATION:
            category[~event] = Category.TEMPORARY
    return category


def _traits(job: TrainingJob, recording: Recording, module: nn.Module) -> tuple[str, ...]:
    operators = recording.operators
    traits = {
        "attention": bool(attention.kernels_used()),
        "batch_norm": bool(operators & {"native_batch_norm", "cudnn_batch_norm"}),
        "convolution": bool(operators & {"convolution", "convolution_overrideable"}),
        "data_parallel": job.data_parallel.strategy is not DataParallelStrategy.UNSPECIFIED,
        "fully_sharded": job.data_parallel.strategy is DataParallelStrategy.FSDP,
        "matrix_product": any(s.workspace == "cublas" for s in recording.storages),
        "recurrent": any(isinstance(m, nn.RNNBase) for m in module.modules()),
    }
    return tuple(name for name, present in traits.items() if present)
