"""What building a model gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from memplan.types import InputTensor

__all__ = ["BuiltModel"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltModel:
    """A model and what its training step feeds it with."""

    module: nn.Module
    """On the meta device, in train mode, float32, contiguous."""
    inputs: tuple[InputTensor, ...]
    """Shape of one sample and element type are set; the name too where it must be passed by
    keyword."""
    labels: tuple[InputTensor, ...] = ()
    """Further inputs that are targets, passed by keyword."""
    returns_loss: bool = False
    """Whether forward(*inputs, **labels) computes the loss: `extract_loss(output)`."""
    assumptions: tuple[str, ...] = ()
    """What was taken for granted, in sentences without a full stop."""
