"""The values of a batch that a model looks at, as the job states them.

values = batch_of(built, spec, 4)       # [4, *spec.shape] on the host; None where any will do
"""

from __future__ import annotations

import torch

from memplan.types import GraphInput, InputTensor
from memplan_server.models import BuiltModel, input_shape

__all__ = ["batch_of", "shape_of"]


def shape_of(built: BuiltModel, spec: InputTensor | GraphInput, batch_size: int) -> tuple[int, ...]:
    """Shape of an input for a batch; for a sample of it where each has tensors of its own."""
    if built.per_sample:
        assert isinstance(spec, InputTensor)
        return spec.shape
    if isinstance(spec, InputTensor) and spec.name in built.flattened:
        return (batch_size * spec.shape[0], *spec.shape[1:])
    return input_shape(spec, batch_size)


def batch_of(
    built: BuiltModel, spec: InputTensor | GraphInput, batch_size: int
) -> torch.Tensor | None:
    """Values of an input for a batch, where they are stated."""
    stated = built.stated.get(spec.name)
    if stated is None:
        return None
    if built.per_sample:
        return stated.row.clone()
    rows = stated.row.expand(batch_size, *stated.row.shape).clone()
    if stated.padded and batch_size > 1:
        rows[1:, ..., -1] = 0  # the first sample is the longest
    return rows.flatten(0, 1) if spec.name in built.flattened else rows
