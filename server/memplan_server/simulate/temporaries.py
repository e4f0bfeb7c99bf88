"""What CUDA's kernels allocate besides their results.

Layer normalisation, softmax and their gradients copy what is not contiguous; the gradients of
attention have buffers of their own; some operators are composed of others. All of it is gone when
the operator returns.

Known limitations: buffers of a few kilobytes for scans and sorts are left out, and so are those of
the gradient of an embedding (sorted indices and partial sums for each row in use), which depend on
the batch size in steps; little else is held when that is computed, at the end of backward.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from memplan_server.simulate.recorder import Recorder

__all__ = ["COMPOSED", "KERNELS", "TEMPORARIES", "composite"]

_ATEN = torch.ops.aten

Tensor = torch.Tensor


def _contiguous(recorder: Recorder, tensor: Tensor) -> Tensor:
    """The tensor, or a contiguous copy of it."""
    if tensor.is_contiguous():
        return tensor
    layout = torch.contiguous_format
    copy: Tensor = recorder.execute(_ATEN.clone.default, tensor, memory_format=layout)
    return copy


def _layer_norm(recorder: Recorder, input: Tensor, *rest: Any) -> Any:
    """None where nothing has to be copied.

    Source: `layer_norm_cuda` in aten/src/ATen/native/cuda/layer_norm_kernel.cu.
    """
    if input.is_contiguous():
        return None
    copy = _contiguous(recorder, input)
    return recorder.execute(_ATEN.native_layer_norm.default, copy, *rest)


def _layer_norm_backward(recorder: Recorder, grad_output: Tensor, input: Tensor, *rest: Any) -> Any:
    """Source: `layer_norm_backward_cuda`, which also makes `grad_output` contiguous."""
    if grad_output.is_contiguous() and input.is_contiguous():
        return None
    copies = _contiguous(recorder, input), _contiguous(recorder, grad_output)
    func = _ATEN.native_layer_norm_backward.default
    return recorder.execute(func, copies[1], copies[0], *rest)


def _softmax(func: Any) -> Callable[..., Any]:
    """Source: `host_softmax` in aten/src/ATen/native/cuda/SoftMax.cu."""

    def kernel(recorder: Recorder, input: Tensor, *rest: Any) -> Any:
        if input.is_contiguous():
            return None
        return recorder.execute(func, _contiguous(recorder, input), *rest)

    return kernel


def _softmax_backward(func: Any) -> Callable[..., Any]:
    """Source: `host_softmax_backward` in aten/src/ATen/native/cuda/SoftMax.cu."""

    def kernel(recorder: Recorder, grad_output: Tensor, output: Tensor, *rest: Any) -> Any:
        if grad_output.is_contiguous() and output.is_contiguous():
            return None
        copies = _contiguous(recorder, grad_output), _contiguous(recorder, output)
        return recorder.execute(func, *copies, *rest)

    return kernel


KERNELS: dict[Any, Callable[..., Any]] = {
    _ATEN.native_layer_norm.default: _layer_norm,
    _ATEN.native_layer_norm_backward.default: _layer_norm_backward,
    _ATEN._softmax.default: _softmax(_ATEN._softmax.default),
    _ATEN._log_softmax.default: _softmax(_ATEN._log_softmax.default),
    _ATEN._softmax_backward_data.default: _softmax_backward(_ATEN._softmax_backward_data.default),
    _ATEN._log_softmax_backward_data.default: _softmax_backward(
        _ATEN._log_softmax_backward_data.default
    ),
}
"""What executes each operator; None means that it can be executed as it is."""


COMPOSED = frozenset(
    {
        _ATEN._safe_softmax.default,
        _ATEN._trilinear.default,
        _ATEN._unsafe_masked_index.default,
        _ATEN._unsafe_masked_index_put_accumulate.default,
        _ATEN.binary_cross_entropy_with_logits.default,
        _ATEN.dist.default,
        _ATEN.isinf.default,
        _ATEN.logsumexp.default,
        _ATEN.logsumexp.out,
        _ATEN.soft_margin_loss.default,
        _ATEN.soft_margin_loss.out,
        _ATEN.soft_margin_loss_backward.default,
        _ATEN.soft_margin_loss_backward.grad_input,
    }
)
"""Operators that are one to autograd and several to the allocator. PyTorch composes them of others
on every device (CompositeExplicitAutograd in native_functions.yaml), with tensors on the way."""
_COMPOSITES = (
    torch.DispatchKey.CompositeExplicitAutograd,
    torch.DispatchKey.CompositeExplicitAutogradNonFunctional,
)


@functools.cache
def composite(func: Any) -> torch.DispatchKey:
    """Under which PyTorch keeps the kernel of one of `COMPOSED`."""
    return next(
        key
        for key in _COMPOSITES
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key.name)
    )


def _flash_attention_backward(
    grad_out: Tensor, query: Tensor, *rest: Any, **options: Any
) -> list[int]:
    """Tensors are [batch, heads, length, head_dim]."""
    batch, heads, length, head_dim = query.shape
    groups = _expanded(query.shape[1], rest[0], 1)
    return _flash_buffers(batch * _rounded(length, 128), heads, head_dim) + groups


def _flash_attn_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
) -> list[int]:
    """Tensors are [batch, length, heads, head_dim], or [tokens, heads, head_dim] with the starts of
    sequences, which are padded apart."""
    *batch, length, heads, head_dim = query.shape
    rows = length + 128 * (rest[2].numel() - 1) if not batch else batch[0] * _rounded(length, 128)
    return _flash_buffers(rows, heads, head_dim) + _expanded(heads, key, -2)


def _flash_buffers(rows: int, heads: int, head_dim: int) -> list[int]:
    """The sums of gradient and output, and the gradient of the query in float32.

    Source: `softmax_d`, `dq_accum` and `head_size_rounded` of `mha_bwd` and `mha_varlen_bwd` in
    aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
    """
    columns = _rounded(head_dim, 32 if head_dim <= 128 else 64)
    return [rows * heads * 4, rows * heads * columns * 4]


def _expanded(heads: int, key: Tensor, dim: int) -> list[int]:
    """Gradients of keys and values for each head of the query, where several share one.

    They are summed into the results, so both are there at once. Source: `dk_expanded` and
    `dv_expanded` of `mha_bwd` and `mha_varlen_bwd`, made where `num_heads_k != num_heads`.
    """
    shared = key.shape[dim]
    return [] if shared == heads else [key.nbytes // shared * heads] * 2


def _efficient_attention_backward(
    grad_out: Tensor, query: Tensor, *rest: Any, **options: Any
) -> list[int]:
    """The sums of gradient and output.

    Source: `_efficient_attention_backward` in
    aten/src/ATen/native/transformers/cuda/attention_backward.cu.
    """
    batch, heads, length, _ = query.shape
    return [batch * heads * length * 4]


def _index_put(
    values: Tensor,
    indices: Sequence[Tensor | None],
    source: Tensor,
    accumulate: bool = False,
    *rest: Any,
) -> list[int]:
    """Where rows may meet they are sorted first: places, their order, both sorted, and as much for
    the sort.

    Source: `index_put_with_sort_kernel` in aten/src/ATen/native/cuda/Indexing.cu.
    """
    if not accumulate:
        return []
    masks = (torch.bool, torch.uint8)
    dims = max(1 if i.dtype in masks else i.dim() for i in indices if i is not None)
    return [8 * math.prod(source.shape[:dims])] * 6


def _masked_scatter(
    values: Tensor, mask: Tensor, source: Tensor, *rest: Any, **options: Any
) -> list[int]:
    """The mask for each element where it is expanded, and the sums of it before each.

    Source: `masked_scatter__cuda` in aten/src/ATen/native/cuda/IndexKernel.cpp and
    `launch_masked_scatter_kernel` in IndexKernel.cu.
    """
    expanded = mask.expand(values.shape)
    copies = [] if expanded.is_contiguous() else [expanded.numel()]
    return [8 * expanded.numel(), *copies]


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


TEMPORARIES: dict[Any, Callable[..., Sequence[int]]] = {
    _ATEN._scaled_dot_product_flash_attention_backward.default: _flash_attention_backward,
    _ATEN._flash_attention_backward.default: _flash_attn_backward,
    _ATEN._scaled_dot_product_efficient_attention_backward.default: _efficient_attention_backward,
    _ATEN.index_put_.default: _index_put,
    _ATEN.masked_scatter.default: _masked_scatter,
    _ATEN.masked_scatter_.default: _masked_scatter,
}
"""Bytes of what each operator allocates after its results and frees before it returns."""
