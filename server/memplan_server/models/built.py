"""What building a model gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from memplan.types import GraphInput, InputTensor

__all__ = ["BuiltModel"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltModel:
    """A model and what its training step feeds it with."""

    module: nn.Module
    """On the meta device, in train mode; float32 and contiguous, but for a captured graph, which is
    as it was captured."""
    inputs: tuple[InputTensor | GraphInput, ...]
    """Shape of one sample and element type are set; the name too where it must be passed by
    keyword. Those of a captured graph are passed by position."""
    labels: tuple[InputTensor, ...] = ()
    """Further inputs that are targets, passed by keyword."""
    returns_loss: bool = False
    """Whether forward(*inputs, **labels) computes the loss: `extract_loss(output)`."""
    assumptions: tuple[str, ...] = ()
    """What was taken for granted, in sentences without a full stop."""
    optimizer_groups: Mapping[str, int] = field(default_factory=dict)
    """Which of the optimizer's groups, counted from 1, each parameter is in, by its name; 0 for
    none. Matters where the optimizer has groups."""
    fixed_batch_size: int = 0
    """The only batch size that it can be executed with; 0 for all."""
