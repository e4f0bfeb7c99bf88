"""Gradients that meet in autograd's engine are added in place.

Where a tensor was used twice, its gradients are added as they arrive. On a GPU the engine adds in
place when nothing else holds the first of them; under a dispatch mode it never does, and a tensor
would be allocated for every residual connection. Source: `accumulate` and `can_accumulate_inplace`
in torch/csrc/autograd/input_buffer.cpp.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["in_place", "references_when_unshared"]

_ADD = torch.ops.aten.add.Tensor
_use_count: Callable[[torch.Tensor], int] = getattr(torch.Tensor, "_use_count", lambda _: 0)


def in_place(func: Any, args: tuple[Any, ...], unshared: tuple[int, int]) -> bool:
    """Whether an operator called by autograd's engine adds to a gradient that it alone holds.

    `unshared` is what `references_when_unshared` says. For formulas of single operators that add
    two tensors of their own the answer is true as well.
    """
    if func is not _ADD or len(args) != 2 or not all(isinstance(a, torch.Tensor) for a in args):
        return False
    held = args[0]
    dense = torch._prims_common.is_non_overlapping_and_dense_or_false(held)
    return held.shape == args[1].shape and dense and _references(held) == unshared


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
