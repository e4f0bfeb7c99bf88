"""Fake tensors of a capture whose values are known where they follow from constants and routing.

Values depend on the batch size, so they are followed only while it is a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from memplan.fakes import known, masks

__all__ = ["Mode"]

_BY_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Mode(FakeTensorMode):
    """Within, tensors have shapes and no data; `assume` is told what known values rest on."""

    def __init__(self, assume: Callable[[str], None], *, follows: bool) -> None:
        super().__init__(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        self.assume = assume
        self._follows = follows
        self._depth = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._depth or not self._follows:
            return super().__torch_dispatch__(func, types, args, kwargs)
        self._depth += 1
        try:
            out = self._by_values(func, args, kwargs or {})
            if out is None:
                out = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._depth -= 1
        known.follow(func, args, kwargs or {}, out)
        return out

    def _by_values(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operator that depends on values, where those are known; else None."""
        if not any(tag in func.tags for tag in _BY_VALUES):
            return None
        if func in masks.KERNELS and masks.all_known(args):
            return masks.KERNELS[func](self, *args, **kwargs)
        found = known.result_of(func, args, kwargs)
        if found is None:
            return None
        result, assumptions = found
        self._state(assumptions)
        if not isinstance(result, torch.Tensor):
            return result
        return self.execute(torch.ops.aten.new_empty.default, args[0], tuple(result.shape))

    def values_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor's values, if they are known; what they rest on is stated."""
        values = known.value_of(tensor)
        if values is not None:
            self._state(known.known_of(tensor).assumptions)  # type: ignore[union-attr]
        return values

    def execute(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute an operator that another one stands for."""
        return super().__torch_dispatch__(func, (), args, kwargs)

    def _state(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.assume(sentence)
