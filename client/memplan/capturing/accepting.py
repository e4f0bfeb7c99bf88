"""What can be captured: modules as they are before somebody wraps or compiles them.

module, assumptions = accepted(given)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from memplan.errors import CaptureError

__all__ = ["COMPILED", "ONE_GPU", "accepted"]

COMPILED = "torch.compile is not modelled: the module is taken to run without it"
ONE_GPU = "the module within DataParallel is taken to be trained on one GPU"
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def accepted(module: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The module to capture, and what was assumed. Raises `CaptureError` for what is none."""
    if not isinstance(module, nn.Module):
        kind = module.__name__ if isinstance(module, type) else type(module).__name__
        raise CaptureError(f"{kind} is no torch.nn.Module; pass the module object.")
    assumptions: list[str] = []
    if isinstance(module, _WRAPPERS):
        if isinstance(module, nn.DataParallel):
            assumptions.append(ONE_GPU)
        module = module.module
    for path, inner in module.named_modules():
        _check(inner, path)
    if any(_is_compiled(inner) for inner in module.modules()):
        assumptions.append(COMPILED)
    return module, tuple(assumptions)


def _check(module: nn.Module, path: str) -> None:
    named = f"module {path} ({type(module).__name__})" if path else type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise CaptureError(
            f"{named} is compiled by TorchScript. Capture the module that it was made from."
        )
    if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
        raise CaptureError(
            f"{named} is quantised, and quantised modules are not trained. Capture the module that "
            "it was made from."
        )
    held = [*module._parameters.values(), *module._buffers.values()]
    if any(tensor is not None and is_lazy(tensor) for tensor in held):
        raise CaptureError(
            f"{named} is lazy: its parameters have no shapes yet. Call the module once with a "
            "small batch, then make the optimizer."
        )


def _is_compiled(module: nn.Module) -> bool:
    wrapped = type(module).__name__ == "OptimizedModule"
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None
