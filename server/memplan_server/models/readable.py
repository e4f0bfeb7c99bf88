"""Constructors that read numbers from tensors, which have none on the meta device.

    with readable(torch.device("meta")):
        rates = [rate.item() for rate in torch.linspace(0, 0.1, 12)]

Rates of stochastic depth and widths of blocks are worked out with small tensors. What follows from
numbers alone can be read; anything else is refused as before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from memplan.fakes import known

__all__ = ["Constants", "readable", "with_value"]

_EMPTY = torch.ops.aten.empty.memory_format
_ITEM = torch.ops.aten._local_scalar_dense.default
_COPY = torch.ops.aten._to_copy.default


@contextlib.contextmanager
def readable(device: torch.device) -> Iterator[None]:
    """Within, tensors are made on this device, and keep in mind how they were made."""
    with Constants(), device, _Followed():  # type: ignore[no-untyped-call]
        yield


class Constants(TorchFunctionMode):
    """Tensors made of numbers keep their values on the meta device too."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        data = args[0] if args else given.get("data")
        of_numbers = func is torch.tensor and not isinstance(data, torch.Tensor)
        if not of_numbers or torch.device(given.get("device") or "cpu").type != "meta":
            return func(*args, **given)
        return with_value(func(*args, **{**given, "device": "cpu"}), given["device"])


def with_value(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of this value, without data itself."""
    made = torch.empty(value.shape, dtype=value.dtype, device=device)
    values = known.value_of(value)
    if values is not None:
        known.state(made, values)
    return made


class _Followed(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if _reads(func, args, given):
            found = known.result_of(func, args, given)
            if found is not None:
                return found[0]
        out = func(*args, **given)
        if func is not _EMPTY:  # most are parameters, of which nothing follows
            known.follow(func, args, given, out)
        return out


def _reads(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a tensor without data is asked for numbers: `item()`, or `tolist()` and `cpu()`."""
    if func is _COPY:
        to = kwargs.get("device")
        return args[0].is_meta and to is not None and torch.device(to).type != "meta"
    return func is _ITEM and args[0].is_meta
