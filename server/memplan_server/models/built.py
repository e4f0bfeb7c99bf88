"""What building a model gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from memplan.types import GraphInput, InputTensor, Loss

__all__ = ["BuiltModel", "Stated"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """Values of an input that the model looks at."""

    row: torch.Tensor
    """Those of one sample, on the host; every sample has the same."""
    assumption: str
    """What they are, in a sentence without a full stop."""
    ordinary: range | None = None
    """Elements equal to the first of these may be any of them."""
    padded: bool = False
    """Whether every sample but the first ends with a 0."""


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
    default_loss: Loss = Loss.CROSS_ENTROPY
    """What computes the loss of the outputs where the job names none."""
    stated: Mapping[str, Stated] = field(default_factory=dict)
    """By name: the values of inputs and labels where the model decides by them."""
    flattened: frozenset[str] = frozenset()
    """Names of inputs whose samples follow one another along the first dimension: shape
    [batch * shape[0], ...] instead of [batch, shape[0], ...]."""
    per_sample: bool = False
    """The samples of a batch are tensors of their own: forward(images, targets) takes a list with
    the input of each sample, and a list with the labels of each by name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of forward() that are no tensors."""
    assumptions: tuple[str, ...] = ()
    """What was taken for granted, in sentences without a full stop."""
    optimizer_groups: Mapping[str, int] = field(default_factory=dict)
    """Which of the optimizer's groups, counted from 1, each parameter is in, by its name; 0 for
    none. Matters where the optimizer has groups."""
    fixed_batch_size: int = 0
    """The only batch size that it can be executed with; 0 for all."""
