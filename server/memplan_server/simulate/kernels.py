"""Operators whose CUDA path allocates differently from what a new backend gets.

PyTorch asks `is_cuda()` in a few composite operators; the answer is given here for the simulated
GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from memplan.fakes import hardware, known

__all__ = ["register"]

_libraries: list[torch.library.Library] = []  # a Library undoes its registrations when collected


def register() -> None:
    """Register the kernels; once a process."""
    library = torch.library.Library("aten", "IMPL")
    for name in ("softmax", "log_softmax"):
        library.impl(f"{name}.int", _softmax(name), "AutogradPrivateUse1")
    for name in ("_fused_sgd_", "_fused_adagrad_"):
        library.impl(name, _in_place, "Meta")
    library.impl("_local_scalar_dense", _read, "PrivateUse1")
    library.impl("one_hot", _one_hot, "AutogradPrivateUse1")
    library.impl("_grouped_mm", hardware.grouped_mm, "Meta", allow_override=True)
    _libraries.append(library)


def _read(tensor: torch.Tensor) -> Any:
    """`torch.tensor([a, b])` reads its elements past every dispatch mode."""
    values = known.value_of(tensor)
    if values is None:
        raise DataDependentOutputException(torch.ops.aten._local_scalar_dense.default)
    return values.item()


def _one_hot(indices: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    """Zeros and a scatter, as on CUDA. Source: `one_hot` in aten/src/ATen/native/Onehot.cpp."""
    if num_classes < 0:
        num_classes = int(indices.max().item()) + 1
    zeros = torch.zeros((*indices.shape, num_classes), dtype=indices.dtype, device=indices.device)
    return zeros.scatter_(-1, indices.unsqueeze(-1), 1)


def _in_place(*args: object, **kwargs: object) -> None:
    """Fused optimizers without a meta kernel in PyTorch: they update in place and make nothing."""


def _softmax(name: str) -> Callable[..., torch.Tensor]:
    """softmax(half, dtype=float32) is one kernel on CUDA; other conversions are copies.

    Source: `softmax` in aten/src/ATen/native/SoftMax.cpp (`half_to_float`).
    """
    fused: Callable[..., torch.Tensor] = getattr(torch.ops.aten, f"_{name}").default

    def kernel(input: torch.Tensor, dim: int, dtype: Any = None) -> torch.Tensor:
        if input.dtype == torch.float16 and dtype == torch.float32:
            return fused(input, dim, True)
        return fused(input if dtype is None else input.to(dtype), dim, False)

    return kernel
