"""A fake tensor mode that follows the values that are known.

    with Mode(assume, decides=True):
        ...

Values depend on the batch size, so captures follow them only while it is a number.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch._export import non_strict_utils
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.fakes import known, masks
from memplan.fakes.hardware import replaced

__all__ = ["Mode", "followed"]

_BY_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@contextlib.contextmanager
def followed(assume: Callable[[str], None]) -> Iterator[None]:
    """Values are followed by torch.export inside; `assume` is told what they rest on."""
    with replaced(non_strict_utils, "FakeTensorMode", functools.partial(Mode, assume)):
        yield


class Mode(FakeTensorMode):
    """Within, tensors have shapes and no data; `assume` is told what known values rest on.

    decides: masks that are not known select every element, conditions are true, numbers 1.
    """

    def __init__(
        self, assume: Callable[[str], None], *, decides: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._decides = decides
        self.assume = assume
        self._depth = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._depth:
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
        if func in masks.KERNELS and (self._decides or masks.all_known(args)):
            return masks.KERNELS[func](self, *args, **kwargs)
        found = known.result_of(func, args, kwargs)
        if found is None:
            unknown = self._decides and func is torch.ops.aten._local_scalar_dense.default
            return torch.ones((), dtype=args[0].dtype).item() if unknown else None
        self._state(found[1])
        return masks.made(self, args[0], *found)

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
