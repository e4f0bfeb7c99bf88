"""Autocast as CUDA does it, for the simulated GPU.

PyTorch has no autocast kernels for a backend written in Python, so they are registered here from
the lists that it publishes for CUDA and for new backends: aten/src/ATen/autocast_mode.h
(AT_FORALL_LOWER_PRECISION_FP, _FP32, _FP32_SET_OPT_DTYPE, _DIFFERENT_REDISPATCH_SIGNATURE,
_PROMOTE). The policies, from the same file:

    lower precision     floating-point arguments are cast to autocast's type; casts of float32
                        leaves that require a gradient (weights) are kept until autocast exits
    float32             floating-point arguments are cast to float32
    set output type     the arguments stay; where the caller names no `dtype` and the first argument
                        is of low precision, float32 is named as output type
    append output type  the same for `norm`, through another overload
    promote             arguments are cast to the widest type among them

Older releases cast fewer operators (`rms_norm` from 2.12 on); which, is asked of the one installed.
The kept casts are memory. Within `cleared_with_pytorchs()` they go when PyTorch drops its own:
where the outermost autocast exits, that is after forward, and after each checkpointed layer that
is computed anew in backward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from memplan.fakes.hardware import replaced
from memplan_server.simulate import DEVICE_TYPE

__all__ = [
    "APPEND_DTYPE",
    "FLOAT32",
    "LOWER_PRECISION",
    "PROMOTE",
    "SET_DTYPE",
    "cleared_with_pytorchs",
    "on_weight_cast",
    "register",
]

LOWER_PRECISION = """
    _convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d
    conv_transpose2d.input conv_transpose3d.input convolution prelu addmm addmv addr matmul einsum
    mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot
    _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
    _scaled_dot_product_flash_attention scaled_dot_product_attention
""".split()

FLOAT32 = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar
    pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm
    frobenius_norm.dim nuclear_norm nuclear_norm.dim cosine_similarity poisson_nll_loss
    cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss
    huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm
    logsumexp upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d
    _upsample_nearest_exact2d upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d
    upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d upsample_bicubic2d
    _upsample_bicubic2d_aa
""".split()

SET_DTYPE = """
    prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm
    linalg_matrix_norm linalg_matrix_norm.str_ord sum sum.dim_IntList
""".split()

APPEND_DTYPE = {
    "norm.Scalar": "norm.ScalarOpt_dtype",
    "norm.ScalarOpt_dim": "norm.ScalarOpt_dim_dtype",
}

PROMOTE = """
    addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
""".split()

_KEY = "AutocastPrivateUse1"
_KEYSET = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _KEY))
_LOW = (torch.float16, torch.bfloat16)

Kernel = Callable[..., Any]
_libraries: list[torch.library.Library] = []  # a Library undoes its registrations when collected
_weight_casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
_weight_cast_listener: list[Callable[[torch.Tensor], None]] = []


def register() -> None:
    """Register the kernels of the operators that the installed PyTorch casts on CUDA; once a
    process."""
    casts = torch._C._dispatch_has_kernel_for_dispatch_key
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(torch.library.fallthrough_kernel, _KEY)
    library = torch.library.Library("aten", "IMPL")
    policies: list[tuple[Iterable[str], Callable[[str], Kernel]]] = [
        (LOWER_PRECISION, _lower_precision),
        (FLOAT32, _float32),
        (SET_DTYPE, _set_dtype),
        (APPEND_DTYPE, _append_dtype),
        (PROMOTE, _promote),
    ]
    for names, policy in policies:
        for name in names:
            if casts(f"aten::{name}", "AutocastCUDA"):
                library.impl(name, policy(name), _KEY)
    _libraries.extend((fallback, library))


@contextlib.contextmanager
def cleared_with_pytorchs() -> Iterator[None]:
    """Within, the kept weight casts are dropped when PyTorch's are."""
    original = torch.clear_autocast_cache

    def clear() -> None:
        original()
        _weight_casts.clear()

    with replaced(torch, "clear_autocast_cache", clear):
        yield


def on_weight_cast(listener: Callable[[torch.Tensor], None] | None) -> None:
    """Have `listener` called with each low-precision copy of a weight that is kept."""
    _weight_cast_listener[:] = [] if listener is None else [listener]


def overload(name: str) -> Kernel:
    """`conv2d` or `pow.Tensor_Scalar` as a callable of one overload."""
    packet, _, suffix = name.partition(".")
    kernel: Kernel = getattr(getattr(torch.ops.aten, packet), suffix or "default")
    return kernel


def _eligible(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.dtype != torch.float64 and value.device.type != "cpu"


def cast(value: Any, dtype: torch.dtype) -> Any:
    """`value` with its tensors cast as autocast would; casts of weights come from the cache."""
    if isinstance(value, torch.Tensor):
        if not _eligible(value) or value.dtype == dtype:
            return value
        weight = value.is_leaf and value.requires_grad and value.dtype == torch.float32
        keep = (
            dtype in _LOW and weight and not value._is_view() and torch.is_autocast_cache_enabled()
        )
        return _cast_weight(value, dtype) if keep else value.to(dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(cast(v, dtype) for v in value)
    return value


def _cast_weight(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    kept = _weight_casts.get(id(weight))
    if kept is None:
        copy = weight.to(dtype)
        for listener in _weight_cast_listener:
            listener(copy)
        kept = _weight_casts[id(weight)] = (weight, copy)
    return kept[1]


def _redispatch(op: Kernel, args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C._ExcludeDispatchKeyGuard(_KEYSET):
        return op(*args, **kwargs)


def _casting(op: Kernel, args: Any, kwargs: dict[str, Any], dtype: torch.dtype) -> Any:
    """The last argument is cast first, as PyTorch's compiler orders a call's arguments; backward
    casts the gradients back in the opposite order."""
    with torch._C._ExcludeDispatchKeyGuard(_KEYSET):
        named = {name: cast(value, dtype) for name, value in reversed(kwargs.items())}
        given = [cast(value, dtype) for value in reversed(args)]
        return op(*reversed(given), **named)


def _lower_precision(name: str) -> Kernel:
    op = overload(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        return _casting(op, args, kwargs, torch.get_autocast_dtype(DEVICE_TYPE))

    return kernel


def _float32(name: str) -> Kernel:
    op = overload(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        return _casting(op, args, kwargs, torch.float32)

    return kernel


def _first_is_low(args: Any) -> bool:
    return isinstance(args[0], torch.Tensor) and args[0].dtype in _LOW


def _set_dtype(name: str) -> Kernel:
    op = overload(name)
    schema: torch.FunctionSchema = op._schema  # type: ignore[attr-defined]
    position = next(i for i, a in enumerate(schema.arguments) if a.name == "dtype")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("dtype") if len(args) <= position else args[position]
        if given is None and _first_is_low(args):
            args, kwargs = args[:position], {**kwargs, "dtype": torch.float32}
        return _redispatch(op, args, kwargs)

    return kernel


def _append_dtype(name: str) -> Kernel:
    op, with_dtype = overload(name), overload(APPEND_DTYPE[name])

    def kernel(*args: Any, **kwargs: Any) -> Any:
        if not _first_is_low(args):
            return _redispatch(op, args, kwargs)
        p = args[1] if len(args) > 1 else 2
        return _redispatch(with_dtype, (args[0], p, *args[2:]), {**kwargs, "dtype": torch.float32})

    return kernel


def _promote(name: str) -> Kernel:
    op = overload(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        tensors = [t for t in _tensors((*args, *kwargs.values())) if _eligible(t)]
        widest = torch.get_autocast_dtype(DEVICE_TYPE)
        if any(t.dtype == torch.float32 for t in tensors):
            widest = torch.float32
        return _casting(op, args, kwargs, widest)

    return kernel


def _tensors(values: Iterable[Any]) -> Iterable[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
