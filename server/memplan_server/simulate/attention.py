"""scaled_dot_product_attention with the kernel that the target GPU would pick.

Sources: `select_sdp_backend` and the `can_use_*` functions of
aten/src/ATen/native/transformers/cuda/sdp_utils.cpp for the choice,
`scaled_dot_product_attention` of aten/src/ATen/native/transformers/attention.cpp for what happens
around the kernel (masks made additive, heads padded to a multiple of 8 for flash attention, masks
padded to a multiple of 16 for memory-efficient attention).

cuDNN attention comes first on Hopper and data centre Blackwell, but not where a mask is trained
(T5, Swin, BEiT). No fused kernel takes a mask whose rows do not lie side by side, as those of T5 in
transformers 5.17. Both measured on an H200 with PyTorch 2.11; Blackwell was not.

Known limitations: nested tensors are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from memplan_server.errors import InvalidJob, Violation
from memplan_server.gpus.libraries import KERNEL_CLASSES, kernel_class

__all__ = [
    "AttentionCall",
    "Kernel",
    "choose",
    "kernels_used",
    "register",
    "same_choices",
    "target",
    "use_flash_attn",
]

Kernel = str
"""`cudnn`, `flash`, `efficient` or `math`."""

_FLASH_ATTN = (8, 0)
"""The oldest GPUs that the flash-attn package runs on."""
_HALF = (torch.float16, torch.bfloat16)
_MASK_ALIGNMENT = 16
_HEAD_ALIGNMENT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCall:
    """What the choice of a kernel depends on; nothing of it depends on the batch size."""

    dtype: torch.dtype
    head_dim: int
    value_head_dim: int
    query_length: int
    key_length: int
    grouped: bool
    """Fewer key heads than query heads (enable_gqa)."""
    masked: bool
    causal: bool
    dropout: bool
    requires_grad: bool
    mask_requires_grad: bool = False
    mask_has_rows: bool = True
    """Whether the elements of each of its rows lie side by side."""


def choose(call: AttentionCall, compute_capability: tuple[int, int]) -> Kernel:
    """The kernel PyTorch picks on such a GPU, of those that can compute the gradients."""
    gpu = kernel_class(compute_capability)
    if not call.mask_has_rows:
        return "math"
    if _prefers_cudnn(call, gpu):
        return "cudnn"
    if _flash(call, gpu):
        return "flash"
    return "efficient" if _efficient(call, gpu) else "math"


def _prefers_cudnn(call: AttentionCall, gpu: tuple[int, int]) -> bool:
    if gpu != (9, 0) or call.mask_requires_grad:
        return False
    dims = (call.head_dim, call.value_head_dim)
    fits = all(d <= 256 and d % 8 == 0 for d in dims)
    lengths = call.key_length > 1 and not (call.query_length == 1 and call.dropout)
    return call.dtype in _HALF and fits and lengths


def _flash(call: AttentionCall, gpu: tuple[int, int]) -> bool:
    same_head_dim = call.head_dim == call.value_head_dim <= 256
    large = 192 < call.head_dim <= 224 or (call.head_dim > 224 and call.dropout)
    no_backward = gpu == (8, 6) and call.requires_grad and large
    square = not call.causal or call.query_length == call.key_length
    usable = gpu >= (8, 0) and call.dtype in _HALF and not call.masked
    return usable and same_head_dim and square and not no_backward


def _efficient(call: AttentionCall, gpu: tuple[int, int]) -> bool:
    if call.grouped or (call.dtype == torch.bfloat16 and gpu < (8, 0)):
        return False
    tensor_cores = gpu >= (8, 0) or (gpu >= (7, 0) and call.dtype in _HALF)
    alignment = 4 if gpu >= (8, 0) else 1
    if tensor_cores:
        alignment = max(alignment, 128 // (call.dtype.itemsize * 8))
    return call.head_dim % alignment == 0 and call.value_head_dim % alignment == 0


@dataclass(kw_only=True, slots=True)
class _Target:
    """The GPU simulated for, and the calls seen since it was set."""

    compute_capability: tuple[int, int]
    calls: set[AttentionCall]
    kernels: set[Kernel]
    flash_attn: bool = False
    """Whether the flash-attn package is used, which refuses older GPUs."""


_target = _Target(compute_capability=(8, 0), calls=set(), kernels=set())


def target(compute_capability: tuple[int, int]) -> None:
    """Choose for this GPU from now on; forget the calls seen."""
    _target.compute_capability = compute_capability
    _target.calls.clear()
    _target.kernels.clear()
    _target.flash_attn = False


def use_flash_attn(dtype: torch.dtype) -> None:
    """The flash-attn package computes attention. Raises `InvalidJob` where it would refuse."""
    if dtype not in _HALF:
        said = "flash_attention_2 takes half types only: choose amp-bf16, amp-fp16, bf16 or fp16."
        raise InvalidJob(Violation("job.precision", said))
    if kernel_class(_target.compute_capability) < _FLASH_ATTN:
        said = "flash_attention_2 needs compute capability 8.0: leave out older GPUs, or use sdpa."
        raise InvalidJob(Violation("job.model.catalog.config.attn_implementation", said))
    _target.flash_attn = True
    _target.kernels.add("flash")


def same_choices() -> tuple[tuple[int, int], ...]:
    """The kernel classes that would have made every choice since `target()` alike."""
    gpu = kernel_class(_target.compute_capability)
    return tuple(
        other
        for other in KERNEL_CLASSES
        if all(choose(call, other) == choose(call, gpu) for call in _target.calls)
        and (other >= _FLASH_ATTN or not _target.flash_attn)
    )


def kernels_used() -> frozenset[Kernel]:
    """The kernels chosen since `target()`."""
    return frozenset(_target.kernels)


_libraries: list[torch.library.Library] = []  # a Library undoes its registrations when collected


def register() -> None:
    """Register the kernel; once a process."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("scaled_dot_product_attention", _attention, "AutogradPrivateUse1")
    _libraries.append(library)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    call = _describe(query, key, value, attn_mask, dropout_p, is_causal)
    dense = query.dim() == key.dim() == value.dim() == 4
    kernel = choose(call, _target.compute_capability) if dense else "math"
    if dense:
        _target.calls.add(call)
    _target.kernels.add(kernel)
    mask = _additive(attn_mask, query.dtype)
    if kernel == "math":
        out: torch.Tensor = torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
        return out
    scale = query.size(-1) ** -0.5 if scale is None else scale
    if kernel == "flash":
        return _run_flash(query, key, value, dropout_p, is_causal, scale)
    return _run_biased(kernel, (query, key, value), mask, dropout_p, is_causal, scale)


def _describe(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
) -> AttentionCall:
    return AttentionCall(
        dtype=query.dtype,
        head_dim=query.size(-1),
        value_head_dim=value.size(-1),
        query_length=query.size(-2),
        key_length=key.size(-2),
        grouped=query.dim() == 4 and query.size(1) != key.size(1),
        masked=mask is not None,
        causal=is_causal,
        dropout=dropout_p > 0,
        requires_grad=any(t.requires_grad for t in (query, key, value)),
        mask_requires_grad=mask is not None and mask.requires_grad,
        mask_has_rows=mask is None or mask.stride(-1) == 1 or mask.size(-1) == 1,
    )


def _additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """`convert_boolean_attn_mask`: a boolean mask becomes a new tensor of 0 and -inf."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros_like(mask, dtype=dtype)
    return zeros.masked_fill_(mask.logical_not(), float("-inf"))


def _run_flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float,
) -> torch.Tensor:
    head_dim = query.size(-1)
    padding = -head_dim % _HEAD_ALIGNMENT
    if padding:
        query, key, value = (functional.pad(t, (0, padding)) for t in (query, key, value))
    out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, is_causal, False, scale=scale
    )[0]
    return out[..., :head_dim] if padding else out


def _run_biased(
    kernel: Kernel,
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float,
) -> torch.Tensor:
    query, key, value = tensors
    if mask is not None:
        padding = -mask.size(-1) % _MASK_ALIGNMENT
        if padding and kernel == "efficient":
            mask = functional.pad(mask, (0, padding))[..., : key.size(-2)]
        mask = mask.expand(query.size(0), query.size(1), query.size(2), key.size(2))
    keep_statistics = any(t.requires_grad for t in tensors)
    if kernel == "cudnn":
        out = torch.ops.aten._scaled_dot_product_cudnn_attention(
            query, key, value, mask, keep_statistics, dropout_p, is_causal, False, scale=scale
        )
    else:
        out = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, mask, keep_statistics, dropout_p, is_causal, scale=scale
        )
    return out[0]  # type: ignore[no-any-return]
