"""What a training script does to a model before it moves it to its device."""

from __future__ import annotations

import torch
from torch import nn

from memplan.types import MemoryFormat, Precision, TrainingJob

__all__ = ["prepare"]

_WEIGHTS = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def prepare(job: TrainingJob, module: nn.Module) -> None:
    """Give the module the job's number format and memory layout, in place.

    A captured graph has its number formats already.
    """
    dtype = _WEIGHTS.get(job.precision) if job.model.graph is None else None
    if dtype is not None:
        module.to(dtype)
    if job.memory_format is MemoryFormat.CHANNELS_LAST:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
