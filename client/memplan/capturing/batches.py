"""Example inputs -> tensors without data, and where the batch size stands in their shapes.

batch = Batch.of((x,), {}, targets=(y,), batch_dim=0)
with mode:
    tensors = batch.fakes(4)        # a batch of 4
args, kwargs, targets = batch.unflatten(tensors)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from memplan.errors import CaptureError
from memplan.types import DataType, GraphInput, GraphSize, InputTensor

__all__ = ["Batch", "BatchDim", "BatchTensor", "data_type"]

BatchDim = int | None | Mapping[str, int | None]
"""Where the batch dimension is: in every input, or by the name of the input; None: it has none."""

_TYPES = {getattr(torch, t.value): t for t in DataType if t is not DataType.UNSPECIFIED}
_BATCH_OF_SPECS = 4
"""Batch size of inputs that are described by an InputTensor."""


def data_type(dtype: torch.dtype, what: str) -> DataType:
    """The contract's name of an element type. Raises `CaptureError`."""
    if dtype not in _TYPES:
        known = ", ".join(t.value for t in _TYPES.values())
        raise CaptureError(f"{what} is {dtype}; memplan knows {known}.")
    return _TYPES[dtype]


@dataclass(frozen=True, kw_only=True)
class BatchTensor:
    """One tensor of a batch."""

    name: str
    shape: tuple[tuple[int, int], ...]
    """(fixed, per sample) of each size."""
    dtype: torch.dtype
    is_target: bool = False

    def at(self, batch_size: int) -> tuple[int, ...]:
        """Its shape for a batch of this size."""
        return tuple(fixed + per_sample * batch_size for fixed, per_sample in self.shape)

    def described(self) -> GraphInput:
        """Its part of the graph."""
        return GraphInput(
            name=self.name,
            shape=tuple(GraphSize(fixed=f, per_sample=s) for f, s in self.shape),
            dtype=data_type(self.dtype, self.name),
            is_target=self.is_target,
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the module and its loss are called with."""

    tensors: tuple[BatchTensor, ...]
    """Each once, however often it is passed."""
    leaves: tuple[Any, ...]
    """Everything that is passed; a `_Slot` where it is a tensor."""
    spec: Any
    """How to make (args, kwargs, targets) of the leaves."""
    batch_size: int
    """How many samples the example holds."""
    is_described: bool
    """Whether it has no example: inputs are described by an InputTensor, for one sample."""

    @classmethod
    def of(
        cls,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        targets: Sequence[Any],
        *,
        batch_dim: BatchDim,
        batch_size: int | None,
        forward: Any,
        floating: torch.dtype = torch.float32,
    ) -> Batch:
        """Read example inputs; `floating` is the type of those that name none.

        Raises `CaptureError`.
        """
        named = _names(args, kwargs, targets, forward)
        leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs), tuple(targets)))
        described = batch_size is None and any(isinstance(leaf, InputTensor) for leaf in leaves)
        leaves = [_empty(leaf, floating) for leaf in leaves]
        return _Reader(batch_dim, batch_size).read(leaves, spec, named, is_described=described)

    def fakes(self, batch_size: int) -> list[torch.Tensor]:
        """Tensors for a batch of this size; called within a fake tensor mode."""
        return [torch.empty(t.at(batch_size), dtype=t.dtype) for t in self.tensors]

    def unflatten(self, tensors: Sequence[torch.Tensor]) -> Any:
        """(args, kwargs, targets) with these tensors in their places."""
        leaves = [tensors[x.index] if isinstance(x, _Slot) else x for x in self.leaves]
        return pytree.tree_unflatten(leaves, self.spec)


@dataclass(frozen=True)
class _Slot:
    """Stands for a tensor."""

    index: int


def _empty(leaf: Any, floating: torch.dtype) -> Any:
    """An InputTensor as a tensor without data."""
    if not isinstance(leaf, InputTensor):
        return leaf
    unsaid = leaf.dtype is DataType.UNSPECIFIED
    dtype = floating if unsaid else getattr(torch, leaf.dtype.value)
    return torch.empty((_BATCH_OF_SPECS, *leaf.shape), dtype=dtype, device="meta")


def _names(
    args: Sequence[Any], kwargs: Mapping[str, Any], targets: Sequence[Any], forward: Any
) -> list[tuple[str, bool]]:
    """For each leaf, the name of the input that it belongs to and whether it is a target."""
    known = [
        p.name
        for p in inspect.signature(forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    names: list[tuple[str, bool]] = []
    for index, value in enumerate(args):
        name = known[index] if index < len(known) else f"input_{index}"
        names += [(name, False)] * len(pytree.tree_leaves(value))
    for name, value in kwargs.items():
        names += [(name, False)] * len(pytree.tree_leaves(value))
    for index, value in enumerate(targets):
        name = "target" if len(targets) == 1 else f"target_{index}"
        names += [(name, True)] * len(pytree.tree_leaves(value))
    return names


class _Reader:
    def __init__(self, batch_dim: BatchDim, batch_size: int | None) -> None:
        self._batch_dim = batch_dim
        self._batch_size = batch_size
        self._tensors: list[BatchTensor] = []
        self._known: dict[int, _Slot] = {}

    def read(
        self,
        leaves: Sequence[Any],
        spec: Any,
        named: Sequence[tuple[str, bool]],
        *,
        is_described: bool,
    ) -> Batch:
        found: list[Any] = []
        for leaf, (name, is_target) in zip(leaves, named, strict=True):
            if not isinstance(leaf, torch.Tensor):
                found.append(leaf)
                continue
            if id(leaf) not in self._known:
                self._known[id(leaf)] = _Slot(len(self._tensors))
                self._tensors.append(self._tensor(leaf, name, is_target))
            found.append(self._known[id(leaf)])
        if not self._tensors:
            raise CaptureError(
                "There is no tensor among the example inputs: give tensors, or memplan.InputTensor."
            )
        return Batch(
            tensors=tuple(self._tensors),
            leaves=tuple(found),
            spec=spec,
            batch_size=self._batch_size or 1,
            is_described=is_described,
        )

    def _tensor(self, tensor: torch.Tensor, name: str, is_target: bool) -> BatchTensor:
        sizes = [(size, 0) for size in tensor.shape]
        axis, chosen = self._axis(name)
        if axis is not None and tensor.dim():
            if not -tensor.dim() <= axis < tensor.dim():
                raise CaptureError(f"{name} has {tensor.dim()} dimensions, but batch_dim {axis}.")
            sizes[axis] = self._size(tensor.shape[axis], name, chosen or is_target)
        return BatchTensor(name=name, shape=tuple(sizes), dtype=tensor.dtype, is_target=is_target)

    def _axis(self, name: str) -> tuple[int | None, bool]:
        """The batch dimension of an input, and whether it was given for this one by name."""
        if isinstance(self._batch_dim, Mapping):
            return self._batch_dim.get(name, 0), name in self._batch_dim
        return self._batch_dim, False

    def _size(self, size: int, name: str, chosen: bool) -> tuple[int, int]:
        """(fixed, per sample). The first batch dimension gives the batch size."""
        if not size and not self._batch_size:
            raise CaptureError(f"The batch of {name} is empty: give an example of 2 samples or so.")
        if self._batch_size is None:
            self._batch_size = size
        if size == self._batch_size:
            return 0, 1
        if chosen and size and size % self._batch_size == 0:
            return 0, size // self._batch_size
        if chosen:
            raise CaptureError(
                f"The batch dimension of {name} is {size}, no multiple of the batch size "
                f"{self._batch_size}; see batch_dim and batch_size."
            )
        return size, 0
