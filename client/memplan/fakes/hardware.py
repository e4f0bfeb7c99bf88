"""Libraries that behave differently when they find fake tensors, made to behave as on hardware."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from memplan.fakes import known

__all__ = ["as_on_hardware", "grouped_mm", "replaced"]


@contextlib.contextmanager
def as_on_hardware() -> Iterator[None]:
    """Within, fake tensors are taken for real ones.

    `transformers.utils.import_utils.is_tracing` is true for fake tensors, and attention masks that
    training on hardware would leave out are then made: memory, and another attention kernel.
    `Module.to` swaps fake parameters, which fails while anything else refers to them.
    """
    transformers = sys.modules.get("transformers.utils.import_utils")
    with (
        replaced(transformers, "is_fake_tensor", _never),
        replaced(nn.Module, "_apply", _applied_in_place(nn.Module._apply)),
        replaced(torch.Tensor, "__format__", _formatted(torch.Tensor.__format__)),
    ):
        yield


@contextlib.contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
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


def grouped_mm(
    a: torch.Tensor,
    b: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Shape function of `aten::_grouped_mm`: PyTorch's takes bfloat16 only, CUDA any
    floating-point numbers.

    Rows of the result are padded to 16 bytes. Source: `create_grouped_gemm_output_tensor` in
    aten/src/ATen/native/GroupedMMUtils.h.
    """
    groups = () if offs is None or a.dim() != b.dim() else (offs.numel(),)
    if a.dim() == b.dim() == 3:
        groups = (a.shape[0],)
    size = (*groups, a.shape[-2], b.shape[-1])
    dtype = out_dtype or a.dtype
    per_16_bytes = 16 // dtype.itemsize
    padded = -(-size[-1] // per_16_bytes) * per_16_bytes
    stride = (size[-2] * padded, padded, 1)[-len(size) :]
    return torch.empty_strided(size, stride, dtype=dtype, device=a.device)


def _never(tensor: object) -> bool:
    return False


def _applied_in_place(original: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`Module._apply` with fake parameters as with others: it sets their data."""

    def apply(module: nn.Module, function: Callable[[Any], Any], recurse: bool = True) -> nn.Module:
        own = [*module._parameters.values(), *module._buffers.values()]
        if not any(isinstance(tensor, FakeTensor) for tensor in own):
            return original(module, function, recurse)
        for child in module.children() if recurse else ():
            child._apply(function)
        for parameter in module._parameters.values():
            for tensor in () if parameter is None else (parameter, parameter.grad):
                _set(tensor, function)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else function(buffer)
        return module

    return apply


def _set(tensor: torch.Tensor | None, function: Callable[[Any], Any]) -> None:
    if tensor is None:
        return
    with torch.no_grad():
        applied = function(tensor)
    if applied is not tensor:
        tensor.data = applied


def _formatted(original: Callable[..., str]) -> Callable[..., str]:
    """A number whose value is known is written as its value (`f"expert_{index}"`)."""

    def write(tensor: torch.Tensor, spec: str) -> str:
        if tensor.dim() == 0 and known.known_of(tensor) is not None:
            return format(tensor.item(), spec)
        return original(tensor, spec)

    return write
