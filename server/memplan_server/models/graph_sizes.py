"""Sizes that depend on the micro-batch size."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.types import GraphInput, GraphSize, InputTensor

__all__ = ["batch_size_of", "input_shape", "size_at"]


def size_at(size: GraphSize, batch_size: int) -> int:
    """The size at this micro-batch size."""
    whole = size.fixed + size.per_sample * batch_size + size.per_sample_pair * batch_size**2
    return whole // (size.divisor or 1)


def input_shape(spec: InputTensor | GraphInput, batch_size: int) -> tuple[int, ...]:
    """The whole shape of an input at this micro-batch size."""
    if isinstance(spec, InputTensor):
        return (batch_size, *spec.shape)
    return tuple(size_at(size, batch_size) for size in spec.shape)


def batch_size_of(specs: Sequence[GraphInput], shapes: Sequence[Sequence[int]]) -> int | None:
    """The micro-batch size at which the inputs have these shapes; None when none depends on it."""
    for spec, shape in zip(specs, shapes, strict=True):
        for size, given in zip(spec.shape, shape, strict=True):
            if size.per_sample > 0 and not size.per_sample_pair:
                return (given * (size.divisor or 1) - size.fixed) // size.per_sample
    return None
