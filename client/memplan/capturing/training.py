"""capture_job(): a module, its inputs and its optimizer become a TrainingJob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from memplan.capturing.accepting import accepted
from memplan.capturing.batches import BatchDim
from memplan.capturing.holdings import floating_type
from memplan.capturing.modules import captured
from memplan.capturing.optimizers import describe_optimizer, strangers
from memplan.capturing.wrapping import LossFunction
from memplan.errors import CaptureError
from memplan.types import (
    AllocatorSettings,
    Assumptions,
    DataParallel,
    DataParallelStrategy,
    Loss,
    Model,
    Optimizer,
    Precision,
    TrainingJob,
    TrainingLoop,
)

__all__ = ["capture_job"]

_AUTOCAST = (Precision.AMP_BF16, Precision.AMP_FP16)
_HALF = {torch.bfloat16: Precision.BF16, torch.float16: Precision.FP16}


def capture_job(
    module: nn.Module,
    inputs: Any,
    optimizer: torch.optim.Optimizer | Optimizer,
    *,
    kwargs: Mapping[str, Any] | None = None,
    loss: LossFunction | Loss | None = None,
    targets: Any = (),
    batch_dim: BatchDim = 0,
    batch_size: int | None = None,
    assumptions: Assumptions | None = None,
    micro_batch_size: int = 0,
    precision: Precision = Precision.UNSPECIFIED,
    loop: TrainingLoop | None = None,
    allocator: AllocatorSettings | None = None,
    state_count: int | None = None,
) -> TrainingJob:
    """The job that trains `module` with `optimizer`. See `capture` for what is not named here.

        job = memplan.capture_job(model, x, torch.optim.AdamW(model.parameters()), targets=y,
                                  loss=F.cross_entropy, precision=memplan.Precision.AMP_BF16)

    optimizer: the one that trains it, or a `memplan.Optimizer` that describes one.
    micro_batch_size: default: what the example inputs hold; inputs that are described hold none.
    precision: default: the number format of the module's parameters.
    state_count: for an optimizer that memplan does not know; see `describe_optimizer`.

    Raises `CaptureError`.
    """
    inner, _ = accepted(module)
    if isinstance(optimizer, Optimizer):
        described, real = optimizer, None
    else:
        described, real = describe_optimizer(optimizer, state_count=state_count), optimizer
        _check_parameters(optimizer, inner)
    if precision is Precision.UNSPECIFIED:
        precision = _HALF.get(floating_type(inner), Precision.FP32)
    graph, samples = captured(
        module,
        inputs,
        kwargs=kwargs,
        loss=loss,
        targets=targets,
        batch_dim=batch_dim,
        batch_size=batch_size,
        assumptions=assumptions,
        optimizer=real,
        autocast=precision in _AUTOCAST,
    )
    return TrainingJob(
        model=Model(graph=graph),
        loss=loss if isinstance(loss, Loss) else Loss.UNSPECIFIED,
        optimizer=described,
        precision=precision,
        loop=loop or TrainingLoop(),
        allocator=allocator or AllocatorSettings(),
        assumptions=assumptions or Assumptions(),
        micro_batch_size=micro_batch_size or samples,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        data_parallel=_data_parallel(module),
    )


def _data_parallel(module: nn.Module) -> DataParallel:
    """How the module's gradients are reduced, of one within DistributedDataParallel."""
    if not isinstance(module, nn.parallel.DistributedDataParallel):
        return DataParallel()
    return DataParallel(
        strategy=DataParallelStrategy.DDP,
        gradient_as_bucket_view=module.gradient_as_bucket_view,
        bucket_cap_mb=max(1, module.bucket_bytes_cap >> 20),
    )


def _check_parameters(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    count = strangers(optimizer, module.parameters())
    if count:
        raise CaptureError(
            f"The optimizer has {count} parameters that the module does not have: make it from "
            "module.parameters(), after the module is moved or converted."
        )
