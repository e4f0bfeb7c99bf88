"""capture_job(): a module, its inputs and its optimizer become a TrainingJob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from memplan.capturing.batches import BatchDim
from memplan.capturing.capture import captured
from memplan.capturing.optimizers import describe_optimizer, strangers
from memplan.capturing.wrapping import LossFunction
from memplan.errors import CaptureError
from memplan.types import (
    AllocatorSettings,
    Loss,
    Model,
    Precision,
    TrainingJob,
    TrainingLoop,
)

__all__ = ["capture_job"]

_HALF = {torch.bfloat16: Precision.BF16, torch.float16: Precision.FP16}


def capture_job(
    module: nn.Module,
    inputs: Any,
    optimizer: torch.optim.Optimizer,
    *,
    kwargs: Mapping[str, Any] | None = None,
    loss: LossFunction | Loss | None = None,
    targets: Any = (),
    batch_dim: BatchDim = 0,
    batch_size: int | None = None,
    micro_batch_size: int = 0,
    precision: Precision = Precision.UNSPECIFIED,
    loop: TrainingLoop | None = None,
    allocator: AllocatorSettings | None = None,
    state_count: int | None = None,
) -> TrainingJob:
    """The job that trains `module` with `optimizer`. See `capture` for what is not named here.

        job = memplan.capture_job(model, x, torch.optim.AdamW(model.parameters()), targets=y,
                                  loss=F.cross_entropy, precision=memplan.Precision.AMP_BF16)

    micro_batch_size: default: what the example inputs hold.
    precision: default: the number format of the module's parameters.
    state_count: for an optimizer that memplan does not know; see `describe_optimizer`.

    Raises `CaptureError`.
    """
    described = describe_optimizer(optimizer, state_count=state_count)
    count = strangers(optimizer, module.parameters())
    if count:
        raise CaptureError(
            f"The optimizer has {count} parameters that the module does not have: make it from "
            "module.parameters(), after the module is moved or converted."
        )
    graph, samples = captured(
        module,
        inputs,
        kwargs=kwargs,
        loss=loss,
        targets=targets,
        batch_dim=batch_dim,
        batch_size=batch_size,
        optimizer=optimizer,
    )
    return TrainingJob(
        model=Model(graph=graph),
        loss=loss if isinstance(loss, Loss) else Loss.UNSPECIFIED,
        optimizer=described,
        precision=_precision(module) if precision is Precision.UNSPECIFIED else precision,
        loop=loop or TrainingLoop(),
        allocator=allocator or AllocatorSettings(),
        micro_batch_size=micro_batch_size or samples,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
    )


def _precision(module: nn.Module) -> Precision:
    """BF16 or FP16 where most of the module is in that format."""
    sizes: dict[Precision, int] = {}
    for parameter in module.parameters():
        precision = _HALF.get(parameter.dtype, Precision.FP32)
        sizes[precision] = sizes.get(precision, 0) + parameter.numel()
    return max(sizes, key=sizes.__getitem__, default=Precision.FP32)
