"""Rules of thumb: the textbook formula, and what `accelerate estimate-memory` multiplies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from memplan.types import Precision, TrainingJob
from memplan_server import models
from memplan_server.timeline import Timeline
from peers.fake import fake_loop

__all__ = ["accelerate_bytes", "activation_bytes_per_sample", "model_state_bytes"]

_SAMPLES = 4
"""More than 1, whose dimensions are special, and even, as some models pair samples."""


def model_state_bytes(timeline: Timeline) -> int:
    """The textbook's fixed part: parameters x (weight + gradient + optimizer states)."""
    return timeline.parameter_bytes + timeline.gradient_bytes + timeline.optimizer_state_bytes


def activation_bytes_per_sample(job: TrainingJob, built: models.BuiltModel) -> int:
    """The textbook's activations: the outputs of the forward pass, for one sample.

    Counted is every tensor that a module without submodules returns, each time it is called, in
    the type it is returned in (under autocast, its); not one that shares its storage with an input
    of the module (views, in-place modules, identities).
    """
    total = 0

    def count(_: nn.Module, inputs: Any, outputs: Any) -> None:
        nonlocal total
        given = {t.untyped_storage()._cdata for t in _tensors(inputs)}
        made = {t.untyped_storage()._cdata: t.untyped_storage() for t in _tensors(outputs)}
        total += sum(storage.nbytes() for key, storage in made.items() if key not in given)

    leaves = [m for m in built.module.modules() if not any(m.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with fake_loop(replace(job, micro_batch_size=_SAMPLES), built) as loop:
            loop.step()
            micro_steps = loop.micro_steps
    finally:
        for handle in handles:
            handle.remove()
    return total // (_SAMPLES * micro_steps)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


def accelerate_bytes(job: TrainingJob, built: models.BuiltModel) -> int:
    """What `accelerate estimate-memory` shows as "Training using Adam".

    The largest of model, gradients, optimizer and step, of parameters and buffers at their size in
    float32: 1, 1, 2 and 4 times in float32; 1, 1.5, 2 and 2 times in half or mixed precision. The
    optimizer is always Adam; inputs, batch size and activations have no part in it. Source:
    `estimate_training_usage` and `estimate_command` in src/accelerate/commands/estimate.py.
    """
    tensors = [*built.module.parameters(), *built.module.buffers()]
    size = sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in tensors)
    return size * (4 if job.precision in (Precision.FP32, Precision.TF32) else 2)
