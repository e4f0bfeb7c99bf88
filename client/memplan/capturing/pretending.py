"""The module executed as in training: not as something that is traced.

Code that asks whether it is traced does something else then: it makes masks that training leaves
out, or leaves conditions out. And there are no data, so that what is read from a tensor has to be
assumed; each assumption is stated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch._decomp import meta_table
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import checkpoint
from torch.utils._python_dispatch import _disable_current_modes

from memplan.capturing.recomputing import region
from memplan.errors import CaptureError
from memplan.fakes import known
from memplan.fakes.hardware import as_on_hardware, grouped_mm, replaced

__all__ = ["FUNCTIONS", "SELECTIVE", "as_in_training"]

FUNCTIONS = (
    "custom autograd functions are captured as the operators of their forward: what they keep for "
    "backward by themselves is not known"
)
SELECTIVE = (
    "activation checkpointing that selects what to keep (context_fn) is taken to keep nothing"
)

_CONVERSIONS: dict[str, torch.dtype | None] = {
    "to": None,
    "type": None,
    "type_as": None,
    "float": torch.float32,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""Methods that give a tensor of another element type, and which where their name says it."""
_TO_NUMPY = ("numpy", "tolist", "__array__")
_READERS: dict[str, Callable[[Any], Any]] = {
    "__bool__": bool,
    "__int__": int,
    "__index__": int,
    "__float__": float,
    "item": lambda number: number,
}
"""Methods of a tensor that give its value, and the type of what they give."""


@contextlib.contextmanager
def as_in_training(assume: Callable[[str], None], *, conditions: bool = True) -> Iterator[None]:
    """Answer questions as in training; `assume` is told of each assumption that is made.

    conditions: what conditions read from tensors are taken to be.
    """
    with contextlib.ExitStack() as stack:
        for name in ("is_compiling", "is_exporting", "is_dynamo_compiling"):
            stack.enter_context(replaced(torch.compiler, name, _never))
        stack.enter_context(as_on_hardware())
        stack.enter_context(_any_grouped_mm())
        contiguous = _recorded_contiguous(torch.Tensor.contiguous)
        stack.enter_context(replaced(torch.Tensor, "contiguous", contiguous))
        for name in _CONVERSIONS:
            converted = _recorded_conversion(getattr(torch.Tensor, name), name)
            stack.enter_context(replaced(torch.Tensor, name, converted))
        for name, kind in _READERS.items():
            original = getattr(torch.Tensor, name)
            reader = _reader(original, kind, conditions, assume)
            stack.enter_context(replaced(torch.Tensor, name, reader))
        for name in _TO_NUMPY:
            for holder in (torch.Tensor, FakeTensor):
                outside = _outside(getattr(holder, name), assume)
                stack.enter_context(replaced(holder, name, outside))
        stack.enter_context(_without_functions_of_its_own(assume))
        yield


@contextlib.contextmanager
def _any_grouped_mm() -> Iterator[None]:
    """Grouped matrix products of every number format have a shape."""
    operator = torch.ops.aten._grouped_mm.default
    tables: tuple[tuple[dict[Any, Any], Any], ...] = (
        (meta_table, operator),
        (operator.py_kernels, torch._C.DispatchKey.Meta),
    )
    originals = [table[key] for table, key in tables]
    for table, key in tables:
        table[key] = grouped_mm
    operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for (table, key), original in zip(tables, originals, strict=True):
            table[key] = original
        operator._dispatch_cache.clear()


@contextlib.contextmanager
def _without_functions_of_its_own(assume: Callable[[str], None]) -> Iterator[None]:
    """Note uses of custom autograd functions, and what activation checkpointing computes anew."""
    original: Any = torch.autograd.Function.apply

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        assume(FUNCTIONS)
        return original.__func__(cls, *args, **kwargs)

    class Noted:
        @staticmethod
        def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            with region():
                return function(*args)

    def noted(function: Any, preserve: bool, context_fn: Any, *args: Any, **kwargs: Any) -> Any:
        if context_fn is not checkpoint.noop_context_fn:
            assume(SELECTIVE)
        with region():
            yield

    with (
        replaced(torch.autograd.Function, "apply", classmethod(apply)),
        replaced(checkpoint, "CheckpointFunction", Noted),
        replaced(checkpoint, "_checkpoint_without_reentrant_generator", noted),
    ):
        yield


def _recorded_contiguous(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`Tensor.contiguous` as an operator also where it does nothing.

    Python's leaves no trace where the layout is contiguous here; on a GPU, whose attention and
    convolutions have other layouts, it may copy, and a `view` that follows needs that.
    """

    def contiguous(
        tensor: torch.Tensor, memory_format: torch.memory_format = torch.contiguous_format
    ) -> torch.Tensor:
        if not isinstance(tensor, FakeTensor):
            return original(tensor, memory_format=memory_format)
        made: torch.Tensor = torch.ops.aten.contiguous.default(tensor, memory_format=memory_format)
        return made

    return contiguous


def _recorded_conversion(original: Callable[..., torch.Tensor], name: str) -> Callable[..., Any]:
    """A conversion, with a result of its own also where it does nothing.

    Under autocast it may be asked of a tensor of another type than here. What it gives is another
    tensor then, and the program goes on to hold the one that it had.
    """

    def convert(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        activation = isinstance(tensor, FakeTensor) and not isinstance(tensor, nn.Parameter)
        if activation and _target(name, args, kwargs) == tensor.dtype:
            tensor = torch.ops.aten.alias.default(tensor)
        return original(tensor, *args, **kwargs)

    return convert


def _target(name: str, args: Any, kwargs: Any) -> torch.dtype | None:
    """The element type that a conversion is to give; None for none."""
    given = [_CONVERSIONS[name], *args, *kwargs.values()]
    found = (value.dtype if isinstance(value, torch.Tensor) else value for value in given)
    return next((value for value in found if isinstance(value, torch.dtype)), None)


def _outside(original: Callable[..., Any], assume: Callable[[str], None]) -> Callable[..., Any]:
    def convert(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        values = _stated(tensor, assume)
        if values is None:
            raise CaptureError(
                "The module cannot be captured: it leaves PyTorch for NumPy or Python. Compute "
                "with tensors instead."
            )
        with _disable_current_modes():
            return original(values, *args, **kwargs)

    return convert


def _stated(tensor: torch.Tensor, assume: Callable[[str], None]) -> torch.Tensor | None:
    """The tensor's values where they are known; what they rest on is stated."""
    values = known.value_of(tensor)
    if values is not None:
        for sentence in known.known_of(tensor).assumptions:  # type: ignore[union-attr]
            assume(sentence)
    return values


def _never(*args: object) -> bool:
    return False


def _reader(
    original: Callable[..., Any],
    kind: Callable[[Any], Any],
    conditions: bool,
    assume: Callable[[str], None],
) -> Callable[[torch.Tensor], Any]:
    def read(tensor: torch.Tensor) -> Any:
        if not isinstance(tensor, FakeTensor) or tensor.constant is not None:
            return original(tensor)
        if tensor.numel() != 1:
            return original(tensor)
        values = _stated(tensor, assume)
        if values is not None:
            with _disable_current_modes():
                return original(values)
        if tensor.dtype == torch.bool:
            assume(known.CONDITIONS[conditions])
            return kind(conditions)
        assume(known.NUMBERS)
        return kind(1.0 if tensor.is_floating_point() else 1)

    return read
