"""Operators whose result has as many rows as a mask has true elements.

Where its values are not known, a mask is taken to select everything: the most memory it can take.
Boolean
indices become indices of integers, as CUDA makes them. Source: `expandTensors` in
aten/src/ATen/native/IndexingUtils.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch

from memplan.fakes import known

__all__ = ["KERNELS", "Executor", "all_known", "made"]


class Executor(Protocol):
    """What executes operators without data."""

    def values_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor's values, if they are known; what they rest on is stated."""

    def assume(self, sentence: str) -> None:
        """State an assumption."""

    def execute(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute an operator that another one stands for."""


_ASSUMPTION = "boolean masks used as indices select every element"

_ATEN = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)


def all_known(args: Sequence[Any]) -> bool:
    """Whether the values of all masks among an operator's arguments are known, nested once."""
    flat = [a for arg in args for a in (arg if isinstance(arg, (list, tuple)) else (arg,))]
    masks = [a for a in flat if isinstance(a, torch.Tensor) and a.dtype in _MASKS]
    return all(known.value_of(mask) is not None for mask in masks)


def made(
    executor: Executor, like: torch.Tensor, result: Any, assumptions: Iterable[str] = ()
) -> Any:
    """What an operator that was worked out gives, without data but known; numbers as they are."""
    if isinstance(result, (tuple, list)):
        return type(result)(made(executor, like, part, assumptions) for part in result)
    if not isinstance(result, torch.Tensor):
        return result
    size, dtype = tuple(result.shape), result.dtype
    out: torch.Tensor = executor.execute(_ATEN.new_empty.default, like, size, dtype=dtype)
    known.state(out, result, assumptions)
    return out


def _nonzero(executor: Executor, mask: torch.Tensor) -> torch.Tensor:
    values = executor.values_of(mask)
    if values is None:
        executor.assume(_ASSUMPTION)
    count = mask.numel() if values is None else int(values.count_nonzero())
    size = (count, mask.dim())
    made: torch.Tensor = executor.execute(_ATEN.new_empty.default, mask, size, dtype=torch.int64)
    return made


def _masked_select(executor: Executor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    shape = torch.broadcast_shapes(values.shape, mask.shape)
    known = executor.values_of(mask)
    if known is None:
        executor.assume(_ASSUMPTION)
    rows = shape.numel() if known is None else int(known.expand(shape).count_nonzero())
    made: torch.Tensor = executor.execute(_ATEN.new_empty.default, values, (rows,))
    return made


def _index(
    executor: Executor, values: torch.Tensor, indices: Sequence[torch.Tensor | None]
) -> torch.Tensor | None:
    """None when there is no mask among the indices: then the operator needs no help."""
    if not any(i is not None and i.dtype in _MASKS for i in indices):
        return None
    expanded: list[torch.Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in _MASKS:
            expanded.append(index)
            continue
        places = _nonzero(executor, index)
        expanded += [executor.execute(_ATEN.select.int, places, 1, d) for d in range(index.dim())]
    made: torch.Tensor = executor.execute(_ATEN.index.Tensor, values, expanded)
    return made


def _index_put(
    executor: Executor,
    values: torch.Tensor,
    indices: Sequence[torch.Tensor | None],
    source: torch.Tensor,
    *rest: Any,
) -> None:
    """What the masks become, which is gone when the operator has been executed as it is.

    One mask and one number are filled in without. Source: `canDispatchToMaskedFill` in
    aten/src/ATen/native/TensorAdvancedIndexing.cpp.
    """
    given = [i for i in indices if i is not None]
    if len(given) > 1 or source.dim() > 0:
        _places = [_nonzero(executor, i) for i in given if i.dtype in _MASKS]


KERNELS: dict[Any, Callable[..., torch.Tensor | None]] = {
    _ATEN.nonzero.default: _nonzero,
    _ATEN.masked_select.default: _masked_select,
    _ATEN.index.Tensor: _index,
    _ATEN.index_put.default: _index_put,
    _ATEN.index_put_.default: _index_put,
}
"""What executes each operator; None means that it can be executed as it is."""
