"""The flash-attn package for transformers' `flash_attention_2`, in terms of PyTorch's own kernel.

PyTorch's `_flash_attention_forward` and `_flash_attention_backward` are flash-attn's kernels with
their buffers (results, logsumexp, float32 accumulator of the query's gradient), so the package need
not be there. Batches with padding go through transformers' own functions that take the padding out.

Sources: flash_attn/flash_attn_interface.py; `mha_fwd`, `mha_varlen_fwd` in
aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from memplan_server.simulate import attention

__all__ = ["stands_in"]

NAME = "flash_attention_2"
_HEAD_ALIGNMENT = 8

Window = tuple[int, int]
_NO_WINDOW = (-1, -1)


@contextlib.contextmanager
def stands_in() -> Iterator[None]:
    """Within, transformers computes `flash_attention_2` with the functions here."""
    module: Any = sys.modules.get("transformers.modeling_flash_attention_utils")
    if module is None or not hasattr(module, "lazy_import_flash_attention"):
        yield
        return
    original = module.lazy_import_flash_attention

    def imported(implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        if implementation != NAME:
            return original(implementation, *args, **kwargs)
        functions = (flash_attn_func, flash_attn_varlen_func, None)
        padding = (module._pad_input, module._unpad_input)
        process = module._lazy_define_process_function(flash_attn_varlen_func)
        return (*functions, *padding), (process, dict)

    module.lazy_import_flash_attention = imported
    try:
        yield
    finally:
        module.lazy_import_flash_attention = original


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = _NO_WINDOW,
    softcap: float = 0.0,
    deterministic: bool = False,
) -> torch.Tensor:
    """Attention over q [batch, length, heads, head_dim]; k and v may have fewer heads."""
    lengths = (q.size(1), k.size(1))
    return _attention((q, k, v), (None, None), lengths, dropout_p, softmax_scale, causal)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = _NO_WINDOW,
    softcap: float = 0.0,
    deterministic: bool = False,
) -> torch.Tensor:
    """The same over sequences that follow one another: q [tokens, heads, head_dim]."""
    lengths = (int(max_seqlen_q), int(max_seqlen_k))
    starts = (cu_seqlens_q, cu_seqlens_k)
    return _attention((q, k, v), starts, lengths, dropout_p, softmax_scale, causal)


def _attention(
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    starts: tuple[torch.Tensor | None, torch.Tensor | None],
    lengths: tuple[int, int],
    dropout_p: float,
    scale: float | None,
    causal: bool,
) -> torch.Tensor:
    query = tensors[0]
    attention.use_flash_attn(query.dtype)
    head_dim = query.size(-1)
    scale = head_dim**-0.5 if scale is None else scale
    padding = -head_dim % _HEAD_ALIGNMENT
    if padding:
        tensors = tuple(functional.pad(t, (0, padding)) for t in tensors)  # type: ignore[assignment]
    out: torch.Tensor = torch.ops.aten._flash_attention_forward(
        *tensors, *starts, *lengths, dropout_p, causal, False, scale=scale
    )[0]
    return out[..., :head_dim] if padding else out
