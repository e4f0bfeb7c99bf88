"""The module executed as in training: not as something that is traced.

Code that asks whether it is traced does something else then: it makes masks that training leaves
out, or leaves conditions out. And there are no data, so that what is read from a tensor has to be
assumed; each assumption is stated.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import checkpoint

from memplan.errors import CaptureError

__all__ = ["CHECKPOINTS", "CONDITIONS", "FUNCTIONS", "NUMBERS", "as_in_training"]

CONDITIONS = {
    truth: f"conditions read from tensors (`mask.all()`, `bool(tensor)`) are {said}"
    for truth, said in ((True, "true"), (False, "false (conditions_are_false)"))
}
"""What is said, by what they are taken to be."""
NUMBERS = "numbers read from tensors (`tensor.item()`) are 1"

FUNCTIONS = (
    "custom autograd functions are captured as the operators of their forward: what they keep for "
    "backward by themselves is not known"
)
CHECKPOINTS = (
    "activation checkpointing is not modelled: activations are taken to be kept, so that the job "
    "takes less than is said here"
)

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
            stack.enter_context(_replaced(torch.compiler, name, _never))
        module = sys.modules.get("transformers.utils.import_utils")
        stack.enter_context(_replaced(module, "is_fake_tensor", _never))
        for name, kind in _READERS.items():
            original = getattr(torch.Tensor, name)
            reader = _reader(original, kind, conditions, assume)
            stack.enter_context(_replaced(torch.Tensor, name, reader))
        for name in _TO_NUMPY:
            stack.enter_context(_replaced(torch.Tensor, name, _to_numpy))
            stack.enter_context(_replaced(FakeTensor, name, _to_numpy))
        stack.enter_context(_without_functions_of_its_own(assume))
        yield


@contextlib.contextmanager
def _without_functions_of_its_own(assume: Callable[[str], None]) -> Iterator[None]:
    """Note the uses of custom autograd functions, and of activation checkpointing, which is one."""
    original: Any = torch.autograd.Function.apply

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        assume(FUNCTIONS)
        return original.__func__(cls, *args, **kwargs)

    class Kept:
        @staticmethod
        def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            assume(CHECKPOINTS)
            return function(*args)

    def kept(*args: Any, **kwargs: Any) -> Iterator[None]:
        assume(CHECKPOINTS)
        yield

    with (
        _replaced(torch.autograd.Function, "apply", classmethod(apply)),
        _replaced(checkpoint, "CheckpointFunction", Kept),
        _replaced(checkpoint, "_checkpoint_without_reentrant_generator", kept),
    ):
        yield


def _to_numpy(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    raise CaptureError(
        "The module cannot be captured: it leaves PyTorch for NumPy or Python. Compute with "
        "tensors instead."
    )


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
        if tensor.dtype == torch.bool:
            assume(CONDITIONS[conditions])
            return kind(conditions)
        assume(NUMBERS)
        return kind(1.0 if tensor.is_floating_point() else 1)

    return read


@contextlib.contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute has another value for a while, where it is there."""
    if holder is None or not hasattr(holder, name):
        yield
        return
    inherited = object()
    original = vars(holder).get(name, inherited)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if original is inherited:
            delattr(holder, name)
        else:
            setattr(holder, name, original)
