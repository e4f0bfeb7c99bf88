"""The training loop: what PyTorch's tutorials write, plus what the job asks for.

for inputs, targets in loader:              # the batch before is let go when overwritten
    optimizer.zero_grad()
    with torch.autocast(...):
        outputs = model(inputs)             # so are the outputs
        loss = loss_fn(outputs, targets)    # and the loss
    scaler.scale(loss).backward()
    clip_grad_norm_(...)
    scaler.step(optimizer); scaler.update()
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from memplan.types import (
    DataParallelStrategy,
    GradientClipping,
    GraphInput,
    InputTensor,
    Loss,
    MemoryFormat,
    Precision,
    TrainingJob,
    ZeroGrad,
)
from memplan_server.models import (
    BuiltModel,
    extract_loss,
    extract_outputs,
    torch_dtype,
)
from memplan_server.timeline import Category, Phase
from memplan_server.training import optimizers
from memplan_server.training.data_parallel import Rank
from memplan_server.training.observer import Data, Observer, Unobserved, WithoutValues
from memplan_server.training.pieces import local
from memplan_server.training.stated import shape_of

__all__ = ["Loop", "TargetSpec"]

_AUTOCAST = {Precision.AMP_FP16: torch.float16, Precision.AMP_BF16: torch.bfloat16}
_F = nn.functional
_ELEMENTWISE: dict[Loss, Callable[..., torch.Tensor]] = {
    Loss.BINARY_CROSS_ENTROPY_WITH_LOGITS: _F.binary_cross_entropy_with_logits,
    Loss.MSE: _F.mse_loss,
    Loss.L1: _F.l1_loss,
}
_FIRST_SCALE = 1.0
"""A loss scale at which no gradient overflows, so that no step is skipped: a skipped step makes no
optimizer state. Its value takes no memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSpec:
    """A target that the loss is computed with."""

    shape: tuple[int, ...]
    """With the batch dimension."""
    dtype: torch.dtype
    classes: int | None = None
    """For class indices, how many classes there are."""


@dataclass(kw_only=True)
class Loop:
    """A training loop over a model that is on the device already.

    loop.run(steps=2)

    or, to do something between the steps,

    loop.start()
    loop.step()
    """

    job: TrainingJob
    built: BuiltModel
    device: torch.device
    batch_size: int
    micro_steps: int
    observer: Observer = field(default_factory=Unobserved)
    data: Data = field(default_factory=WithoutValues)
    target_specs: list[TargetSpec] = field(default_factory=list)
    """What targets look like. Empty: it is found out in the first forward pass, and the first
    targets are made after it."""
    steps_done: int = 0
    optimizer_steps_done: int = 0
    """Fewer than `steps_done` when the gradient scaler skipped some because of an overflow."""
    _targets: list[torch.Tensor] = field(default_factory=list)
    _target_room: int | None = None
    _rank: Rank | None = None

    def run(self, steps: int = 2) -> torch.optim.Optimizer:
        """Execute `steps` optimizer steps."""
        self.start()
        for _ in range(steps):
            self.step()
            gc.collect()  # what only a cycle holds is freed here, so that it is at the same place
        return self.optimizer

    def start(self) -> None:
        """Make the optimizer and the gradient scaler; share the gradients with other ranks."""
        if self.job.data_parallel.strategy is DataParallelStrategy.DDP:
            self._rank = Rank(self.job.data_parallel, self.built.module, self.observer)
        named = [(n, p) for n, p in self.built.module.named_parameters() if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        self.optimizer = optimizers.make(self.job.optimizer, named, self.built.optimizer_groups)
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=_FIRST_SCALE,
            enabled=self.job.precision is Precision.AMP_FP16,
        )
        self._loss_kind = loss_of(self.job, self.built)
        self._kept: dict[str, Any] = {}

    def step(self) -> None:
        """Execute one optimizer step with its micro-batches."""
        self._step(self.steps_done, self._kept)
        self.steps_done += 1

    def outputs(self) -> Any:
        """What the model gives for one batch; no loss, no step."""
        with self._autocast():
            return self._forward(self._batch(self.built.inputs), self._batch(self.built.labels))

    def _step(self, step: int, kept: dict[str, Any]) -> None:
        for micro_step in range(self.micro_steps):
            self.observer.micro_step = micro_step
            with self._reduced(last=micro_step == self.micro_steps - 1):
                self.observer.enter(Phase.FORWARD, step)
                self._micro_step(kept, first=micro_step == 0)
                self.observer.enter(Phase.BACKWARD, step)
                self.scaler.scale(kept["loss"]).backward()
            self.observer.mark(
                (local(p.grad) for p in self.parameters if p.grad is not None), Category.GRADIENT
            )
            if self.job.loop.keep_outputs is False:
                kept.clear()
                self._targets = []
        self.observer.enter(Phase.OPTIMIZER_STEP, step)
        self._optimizer_step()

    def _reduced(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients of the last micro-batch are reduced over the ranks, where there are some."""
        return contextlib.nullcontext() if self._rank is None else self._rank.micro_step(last=last)

    def _micro_step(self, kept: dict[str, Any], *, first: bool) -> None:
        zero_grad = self.job.loop.zero_grad
        kept["inputs"] = self._batch(self.built.inputs)
        kept["labels"] = self._batch(self.built.labels)
        self._make_targets()
        if first and zero_grad is ZeroGrad.BEFORE_FORWARD:
            self._zero_grad()
        with self._autocast():
            kept["outputs"] = self._forward(kept["inputs"], kept["labels"])
            loss = self._loss(kept["outputs"])
        kept["loss"] = loss / self.micro_steps if self.micro_steps > 1 else loss
        if first and zero_grad is ZeroGrad.BEFORE_BACKWARD:
            self._zero_grad()

    def _batch(self, specs: Sequence[InputTensor | GraphInput]) -> list[torch.Tensor]:
        with self.observer.category(Category.INPUT):
            samples = self.batch_size if self.built.per_sample else 1
            return [self._input(spec) for _ in range(samples) for spec in specs]

    def _input(self, spec: InputTensor | GraphInput) -> torch.Tensor:
        dtype = torch_dtype(spec.dtype)
        shape = shape_of(self.built, spec, self.batch_size)
        channels_last = self.job.memory_format is MemoryFormat.CHANNELS_LAST and len(shape) == 4
        layout = torch.channels_last if channels_last else torch.contiguous_format
        tensor = torch.empty(shape, dtype=dtype, device=self.device, memory_format=layout)
        self.data.fill_input(spec, tensor)
        return tensor

    def _forward(self, inputs: list[torch.Tensor], labels: list[torch.Tensor]) -> Any:
        model = self.built.module if self._rank is None else self._rank
        if self.built.per_sample:
            return model(inputs, self._by_sample(labels))
        specs = self.built.inputs
        pairs = list(zip(specs, inputs, strict=True))
        positional = [t for s, t in pairs if isinstance(s, GraphInput) or not s.name]
        named = {s.name: t for s, t in pairs if isinstance(s, InputTensor) and s.name}
        named |= {s.name: t for s, t in zip(self.built.labels, labels, strict=True)}
        return model(*positional, **named, **self.built.options)

    def _by_sample(self, labels: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """The labels of each sample, by name."""
        names = [spec.name for spec in self.built.labels]
        rows = zip(*[iter(labels)] * len(names), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _AUTOCAST.get(self.job.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    def _make_targets(self) -> None:
        """Targets come with the batch, but have the output's shape: at first, room is kept."""
        if self.built.returns_loss or self._loss_kind is Loss.MEAN:
            return
        if not self.target_specs:
            if self._target_room is None:
                with self.observer.category(Category.INPUT):
                    self._target_room = self.observer.reserve()
            return
        with self.observer.category(Category.INPUT):
            self._targets = [self._target(spec) for spec in self.target_specs]

    def _target(self, spec: TargetSpec) -> torch.Tensor:
        tensor = torch.empty(spec.shape, dtype=spec.dtype, device=self.device)
        self.data.fill_target(tensor, spec.classes)
        return tensor

    def _loss(self, outputs: Any) -> torch.Tensor:
        if self.built.returns_loss:
            return extract_loss(outputs)
        results = extract_outputs(outputs)
        if self._loss_kind is Loss.MEAN:
            losses = [result.mean() for result in results]
        else:
            if not self._targets:
                self._first_targets(results)
            function = _ELEMENTWISE.get(self._loss_kind, _F.cross_entropy)
            losses = [function(r, t) for r, t in zip(results, self._targets, strict=True)]
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total

    def _first_targets(self, results: Sequence[torch.Tensor]) -> None:
        for spec in target_specs(self._loss_kind, results):
            self.target_specs.append(spec)
            if self._target_room is not None:
                self.observer.fill(self._target_room)
                self._target_room = None
            with self.observer.category(Category.INPUT):
                self._targets.append(self._target(spec))

    def _optimizer_step(self) -> None:
        scaler, clipping = self.scaler, self.job.loop.gradient_clipping
        if clipping in (GradientClipping.NORM, GradientClipping.VALUE):
            scaler.unscale_(self.optimizer)
            self._clip(clipping)
        with self.observer.scalars_are(0.0) if scaler.is_enabled() else contextlib.nullcontext():
            self._scaled_step()
        states = map(local, optimizers.state_tensors(self.optimizer))
        self.observer.mark(states, Category.OPTIMIZER_STATE)
        if self.job.loop.zero_grad is ZeroGrad.AFTER_STEP:
            self._zero_grad()

    def _scaled_step(self) -> None:
        """scaler.step() reads whether a gradient overflowed (0: none did) and then calls the
        optimizer, which reads its step counts (1)."""
        step = self.optimizer.step

        def counting_step(*args: Any, **kwargs: Any) -> Any:
            self.optimizer_steps_done += 1
            with self.observer.scalars_are(1.0):
                return step(*args, **kwargs)

        self.optimizer.step = counting_step  # type: ignore[method-assign]
        try:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        finally:
            self.optimizer.step = step  # type: ignore[method-assign]

    def _clip(self, clipping: GradientClipping) -> None:
        """On CUDA both functions take all gradients at once, whatever the optimizer does."""
        if clipping is GradientClipping.NORM:
            nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        else:
            nn.utils.clip_grad_value_(self.parameters, 1.0, foreach=True)

    def _zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=self.job.loop.zero_grad_set_to_none is not False)


def loss_of(job: TrainingJob, built: BuiltModel) -> Loss:
    """What computes the loss of the outputs."""
    return built.default_loss if job.loss is Loss.UNSPECIFIED else job.loss


def target_specs(loss: Loss, results: Sequence[torch.Tensor]) -> list[TargetSpec]:
    """What targets look like for these outputs: class indices, or numbers like the output."""
    if loss in _ELEMENTWISE:
        return [TargetSpec(shape=tuple(r.shape), dtype=r.dtype) for r in results]
    return [
        TargetSpec(shape=(r.shape[0], *r.shape[2:]), dtype=torch.int64, classes=r.shape[1])
        for r in results
    ]
