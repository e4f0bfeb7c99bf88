"""Numbers that PyTorch works out in host memory while there is no data on the simulated GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

__all__ = ["HostValues"]

_ATEN = torch.ops.aten
_MADE = (_ATEN.empty.memory_format, _ATEN.empty_strided.default, _ATEN.zeros.default)


class HostValues(TorchDispatchMode):
    """Whole numbers (int32) that are made inside in host memory are there, and may be written.

    DistributedDataParallel keeps its lists so: which bucket each gradient belongs to, and which
    parameters got one. What comes back from the device is what was sent there, as on a first rank.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MADE and kwargs.get("dtype") is torch.int32 and _is_host(kwargs.get("device")):
            return _for_real(func, args, {**kwargs, "pin_memory": False})
        if not args or not _is_held(args[0]):
            return func(*args, **kwargs)
        if func is _ATEN.is_pinned.default:
            return True
        if func is _ATEN.copy_.default and isinstance(args[1], FakeTensor):
            return args[0]
        return _for_real(func, args, kwargs)


def _for_real(func: Any, args: Any, kwargs: Any) -> Any:
    with _disable_current_modes():
        return func(*args, **kwargs)


def _is_host(device: torch.device | None) -> bool:
    return device is None or device.type == "cpu"


def _is_held(tensor: Any) -> bool:
    """Whether it is such a list, made inside."""
    real = isinstance(tensor, torch.Tensor) and not isinstance(tensor, FakeTensor)
    return real and tensor.dtype is torch.int32 and _is_host(tensor.device)
