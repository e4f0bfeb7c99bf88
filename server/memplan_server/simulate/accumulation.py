"""Gradients that meet in autograd's engine are added in place.

Where a tensor was used twice, its gradients are added as they arrive. On a GPU the engine adds in
place when nothing else holds the first of them; under a dispatch mode it never does, and a tensor
would be allocated for every residual connection. Source: `accumulate` and `can_accumulate_inplace`
in torch/csrc/autograd/input_buffer.cpp.

So it is with the gradient of indexing, which is added into zeros made for it: `index_backward` in
torch/csrc/autograd/FunctionsManual.cpp calls the operator that makes a tensor of its own only for
tensor subclasses and under a dispatch mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["in_place", "references_when_unshared"]

_ATEN = torch.ops.aten
_ADD = _ATEN.add.Tensor
_use_count: Callable[[torch.Tensor], int] = getattr(torch.Tensor, "_use_count", lambda _: 0)


def in_place(func: Any, args: tuple[Any, ...], unshared: tuple[int, int]) -> Any:
    """What autograd's engine calls on a GPU instead of an operator; None where that is the same.

    `unshared` is what `references_when_unshared` says. Formulas of single operators that add two
    tensors of their own are taken for sums of the engine's.
    """
    if func is _ATEN.index_put.default and len(args) > 3 and args[3]:
        return _ATEN.index_put_.default
    if func is not _ADD or len(args) != 2 or not all(isinstance(a, torch.Tensor) for a in args):
        return None
    held = args[0]
    dense = torch._prims_common.is_non_overlapping_and_dense_or_false(held)
    alone = held.shape == args[1].shape and dense and _references(held) == unshared
    return _ATEN.add_.Tensor if alone else None


def _references(tensor: torch.Tensor) -> tuple[int, int]:
    """Owners of the tensor and of its storage, as they can be seen from a dispatch mode."""
    storage = tensor.untyped_storage()
    return _use_count(tensor), torch._C._storage_Use_Count(storage._cdata)


class _Watch(FakeTensorMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ADD:
            self._look(args)
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _look(self, args: tuple[Any, ...]) -> None:
        held = args[0]
        self.seen.append(_references(held))


@functools.cache
def references_when_unshared() -> tuple[int, int]:
    """Owners of a gradient, and of its storage, that only the engine holds: asked of PyTorch."""
    with _Watch() as watch:
        leaf = torch.empty(2, requires_grad=True)
        used_twice = leaf.tanh()
        (used_twice.tanh() * used_twice.sigmoid()).sum().backward()
    return watch.seen[-1]
