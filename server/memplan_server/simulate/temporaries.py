"""What CUDA's kernels allocate besides their results.

Layer normalisation, softmax and their gradients copy what is not contiguous; the gradients of
attention have buffers of their own; some operators are composed of others. All of it is gone when
the operator returns. What depends on the batch in steps, or on the GPU, is in `buffers.py`.

Sizes that the text calls measured are those of allocations recorded on an H200 with PyTorch 2.11.

Known limitations: buffers of a few kilobytes for scans and sorts are left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from memplan_server.simulate.recorder import Recorder

__all__ = ["COMPOSED", "KERNELS", "TEMPORARIES", "composite", "on_gpu"]

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


def _roll(
    recorder: Recorder, input: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()
) -> Any:
    """One dimension after the other, each into a new tensor.

    Source: `roll_common` in aten/src/ATen/native/TensorTransformations.h.
    """
    if len(dims) < 2:
        return None
    first = recorder.execute(_ATEN.roll.default, input, shifts[:1], dims[:1])
    return recorder.execute(_ATEN.roll.default, first, shifts[1:], dims[1:])


def _embedding(recorder: Recorder, weight: Tensor, indices: Tensor, *rest: Any) -> Any:
    """Source: `embedding_symint` in aten/src/ATen/native/Embedding.cpp."""
    if indices.is_contiguous():
        return None
    return recorder.execute(_ATEN.embedding.default, weight, _contiguous(recorder, indices), *rest)


def _native_dropout(recorder: Recorder, input: Tensor, p: float, train: bool | None) -> Any:
    """The mask is made first. Source: `dropout_cuda` in aten/src/ATen/native/cuda/Dropout.cu."""
    if train is False or not p:
        return None
    mask = recorder.execute(_ATEN.empty_like.default, input, dtype=torch.bool)
    return recorder.execute(_ATEN.empty_like.default, input), mask


def _embedding_backward(recorder: Recorder, grad_output: Tensor, *rest: Any) -> Any:
    """Source: `embedding_dense_backward_cuda` in aten/src/ATen/native/cuda/Embedding.cu."""
    if grad_output.is_contiguous():
        return None
    copy = _contiguous(recorder, grad_output)
    return recorder.execute(_ATEN.embedding_dense_backward.default, copy, *rest)


def _efficient_attention_backward(
    recorder: Recorder, grad_out: Tensor, *rest: Any, **options: Any
) -> Any:
    """It wants [batch, length, heads, head_dim]. Source: as `_efficient_attention_buffers`."""
    rows = grad_out.transpose(1, 2)
    if rows.is_contiguous():
        return None
    copy = _contiguous(recorder, rows).transpose(1, 2)
    func = _ATEN._scaled_dot_product_efficient_attention_backward.default
    return recorder.execute(func, copy, *rest, **options)


KERNELS: dict[Any, Callable[..., Any]] = {
    _ATEN.native_layer_norm.default: _layer_norm,
    _ATEN.native_layer_norm_backward.default: _layer_norm_backward,
    _ATEN._softmax.default: _softmax(_ATEN._softmax.default),
    _ATEN._log_softmax.default: _softmax(_ATEN._log_softmax.default),
    _ATEN._softmax_backward_data.default: _softmax_backward(_ATEN._softmax_backward_data.default),
    _ATEN._log_softmax_backward_data.default: _softmax_backward(
        _ATEN._log_softmax_backward_data.default
    ),
    _ATEN.embedding.default: _embedding,
    _ATEN.native_dropout.default: _native_dropout,
    _ATEN.embedding_dense_backward.default: _embedding_backward,
    _ATEN._scaled_dot_product_efficient_attention_backward.default: _efficient_attention_backward,
    _ATEN.roll.default: _roll,
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


_ON_GPU: dict[Any, tuple[int, ...]] = {
    _ATEN._scaled_dot_product_efficient_attention.default: (0, 1),
    _ATEN._scaled_dot_product_cudnn_attention.default: (6, 7, 0, 1),
    _ATEN.scalar_tensor.default: (),
}
"""Results that are made on the GPU, in their order, where that is not all of them in theirs. The
others have no elements or lie in host memory, as a number does that a slice is set to. Measured."""


def on_gpu(func: Any, results: Any) -> Any:
    """Of an operator's results, those on the GPU, in the order in which they are made."""
    return [results[index] for index in _ON_GPU[func]] if func in _ON_GPU else results


Groups = Sequence[Sequence[int]]
"""Bytes that are there together, group after group."""


def _flash_attention_backward(
    grad_out: Tensor, query: Tensor, *rest: Any, **options: Any
) -> Groups:
    """Tensors are [batch, heads, length, head_dim]."""
    batch, heads, length, head_dim = query.shape
    groups = _expanded(query.shape[1], rest[0], 1)
    return [_flash_buffers(batch * _rounded(length, 128), heads, head_dim) + groups]


def _flash_attn_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
) -> Groups:
    """Tensors are [batch, length, heads, head_dim], or [tokens, heads, head_dim] with the starts of
    sequences, which are padded apart."""
    *batch, length, heads, head_dim = query.shape
    rows = length + 128 * (rest[2].numel() - 1) if not batch else batch[0] * _rounded(length, 128)
    return [_flash_buffers(rows, heads, head_dim) + _expanded(heads, key, -2)]


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


def _efficient_attention_buffers(
    grad_out: Tensor, query: Tensor, *rest: Any, **options: Any
) -> Groups:
    """The sums of gradient and output, which are multiplied first where the kernel does not do so
    (float32), and the gradient of the query in float32, in blocks of 64 rows with a lock each.

    Source: `_efficient_attention_backward` in
    aten/src/ATen/native/transformers/cuda/attention_backward.cu and `workspace_elements_gq` in
    mem_eff_attention/kernel_backward.h. Measured with heads of 64.
    """
    batch, heads, length, head_dim = query.shape
    sums = batch * heads * length * 4
    block = 64 * _rounded(head_dim, 64) * 4 + 16
    last = [sums, batch * heads * -(-length // 64) * block]
    return [last] if query.dtype != torch.float32 else [[sums * head_dim, sums], last]


_CUDNN_SLACK = 256


def _cudnn_attention_buffers(
    query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
) -> Groups:
    """A workspace. Measured; there is none for a single row."""
    return [[_CUDNN_SLACK if query.shape[-2] > 1 else 0]]


def _cudnn_attention_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, *rest: Any, **options: Any
) -> Groups:
    """The gradient of the query and the sums of gradient and output in float32; gradients of keys
    and values for each head of the query where several share one. Measured with heads of 64 to 256.
    """
    batch, heads, length, head_dim = query.shape
    shared = _expanded(heads, key, 1)
    return [[batch * heads * length * (head_dim + 1) * 4 + _CUDNN_SLACK + sum(shared)]]


def _softmax_backward_buffers(grad_output: Tensor, *rest: Any, **options: Any) -> Groups:
    """The product of gradient and output.

    Source: `softmax_backward_cuda_out` in aten/src/ATen/native/cuda/SoftMax.cu.
    """
    return [[grad_output.numel() * grad_output.dtype.itemsize]]


def _embedding_buffers(grad_output: Tensor, indices: Tensor, *rest: Any, **options: Any) -> Groups:
    """Sorted indices, where they come from and which begin a row; few are not sorted, which is not
    told apart.

    Source: `embedding_dense_backward_cuda` in aten/src/ATen/native/cuda/Embedding.cu.
    """
    return [[indices.nbytes] * 5]


def _index_put(
    values: Tensor,
    indices: Sequence[Tensor | None],
    source: Tensor,
    accumulate: bool = False,
    *rest: Any,
) -> Groups:
    """Where rows may meet they are sorted first: places, their order, both sorted, and as much for
    the sort; then what is added is made contiguous.

    Source: `index_put_with_sort_kernel` in aten/src/ATen/native/cuda/Indexing.cu.
    """
    if not accumulate:
        return []
    masks = (torch.bool, torch.uint8)
    dims = max(1 if i.dtype in masks else i.dim() for i in indices if i is not None)
    copies = [] if source.is_contiguous() else [source.numel() * source.dtype.itemsize]
    return [[8 * math.prod(source.shape[:dims])] * 6 + copies]


def _masked_scatter(
    values: Tensor, mask: Tensor, source: Tensor, *rest: Any, **options: Any
) -> Groups:
    """The mask for each element where it is expanded, and the sums of it before each.

    Source: `masked_scatter__cuda` in aten/src/ATen/native/cuda/IndexKernel.cpp and
    `launch_masked_scatter_kernel` in IndexKernel.cu.
    """
    expanded = mask.expand(values.shape)
    copies = [] if expanded.is_contiguous() else [expanded.numel()]
    return [[8 * expanded.numel(), *copies]]


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


TEMPORARIES: dict[Any, Callable[..., Groups]] = {
    _ATEN._scaled_dot_product_flash_attention_backward.default: _flash_attention_backward,
    _ATEN._flash_attention_backward.default: _flash_attn_backward,
    _ATEN._scaled_dot_product_efficient_attention_backward.default: _efficient_attention_buffers,
    _ATEN._scaled_dot_product_cudnn_attention.default: _cudnn_attention_buffers,
    _ATEN._scaled_dot_product_cudnn_attention_backward.default: _cudnn_attention_backward,
    _ATEN._softmax_backward_data.default: _softmax_backward_buffers,
    _ATEN.embedding_dense_backward.default: _embedding_buffers,
    _ATEN.index_put_.default: _index_put,
    _ATEN.masked_scatter.default: _masked_scatter,
    _ATEN.masked_scatter_.default: _masked_scatter,
}
"""Bytes of what each operator allocates after its results and frees before it returns."""
