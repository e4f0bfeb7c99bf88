"""Buffers whose size a GPU decides: what the simulation knows of them.

A `Kernel` says what does not depend on the batch; a number goes with it that does.
`gpus/buffers.py` has the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from memplan_server.timeline import Kernel

__all__ = ["KERNELS"]

_ATEN = torch.ops.aten
_MOST_AT_ONCE = 4

Tensor = torch.Tensor
Found = Sequence[tuple[Kernel, int]]


def _sum(input: Tensor, dims: Sequence[int] | None = None, *rest: Any, **options: Any) -> Found:
    """Of a sum over rows: elements of the result that lie side by side in memory are summed up by
    neighbouring threads. Nothing where elements that are summed up lie side by side.

    Where samples are summed up, their number decides over the rows, else over the result.

    Source: `setReduceConfig` and `get_output_vec_size` in aten/src/ATen/native/cuda/Reduce.cuh;
    the order of dimensions is that of `TensorIterator`.
    """
    if not dims:
        return ()
    summed = {dim % input.dim() for dim in dims}
    by_stride = sorted((d for d in range(input.dim()) if input.shape[d] > 1), key=input.stride)
    kept = [dim for dim in by_stride if dim not in summed]
    if not kept or by_stride[0] in summed:
        return ()
    outputs = math.prod(input.shape[dim] for dim in kept)
    rows = math.prod(input.shape[dim] for dim in summed)
    kernel = Kernel(
        name="sum",
        outputs=outputs if 0 in summed else None,
        rows=None if 0 in summed else rows,
        at_once=_at_once(input, kept, [dim for dim in by_stride if dim in summed]),
        itemsize=max(4, input.dtype.itemsize),
    )
    counted = rows if 0 in summed else outputs
    return (kernel, counted), (replace(kernel, name="semaphores", itemsize=4), counted)


def _at_once(input: Tensor, kept: Sequence[int], summed: Sequence[int]) -> int:
    """Results that one thread works on, as it loads so many neighbours with one instruction."""
    if input.stride(kept[0]) != 1:
        return 1
    length, others = input.shape[kept[0]], list(kept[1:])
    while others and input.stride(others[0]) == length:  # TensorIterator makes one dimension of two
        length *= input.shape[others.pop(0)]
    strides = [input.stride(dim) for dim in (*others, *summed)]
    return math.gcd(_MOST_AT_ONCE, length, *strides)


def _embedding(
    grad_output: Tensor, indices: Tensor, num_weights: int, *rest: Any, **options: Any
) -> Found:
    """Of the gradient of an embedding: partial sums.

    Source: `embedding_backward_cuda_kernel` in
    aten/src/ATen/native/cuda/EmbeddingBackwardKernel.cu.
    """
    width = grad_output.shape[-1]
    kernel = Kernel(name="embedding", outputs=num_weights, at_once=width, itemsize=4)
    return ((kernel, indices.numel()),)


KERNELS: dict[Any, Callable[..., Found]] = {
    _ATEN.sum.dim_IntList: _sum,
    _ATEN.mean.dim: _sum,
    _ATEN.embedding_dense_backward.default: _embedding,
}
"""Operators that take such buffers when their result is made, and give them back."""
