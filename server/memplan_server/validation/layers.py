"""Rules of a layer stack, layer by layer. What flows in is the model builder's business."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memplan.types import (
    ActivationType,
    Convolution,
    Dropout,
    Embedding,
    Layer,
    LayerStack,
    Linear,
    MultiHeadAttention,
    Normalization,
    NormalizationType,
    Pooling,
    PoolingType,
    Recurrent,
    Reshape,
    Residual,
    TransformerEncoderLayer,
    Upsample,
)
from memplan_server.errors import Violation
from memplan_server.jobs import LAYER_KINDS
from memplan_server.validation.rules import (
    INT32_MAX,
    Violations,
    fraction,
    sizes,
    text,
    unused,
    whole,
)

__all__ = ["stack_violations"]

MOST_LAYERS = 2_000
DEEPEST = 16
SPATIAL = 3
_ADAPTIVE = (PoolingType.ADAPTIVE_MAX, PoolingType.ADAPTIVE_AVERAGE)
_ENCODER_ACTIVATIONS = (ActivationType.UNSPECIFIED, ActivationType.RELU, ActivationType.GELU)


def stack_violations(stack: LayerStack, at: str) -> Violations:
    """Every rule that a layer stack breaks."""
    yield from _layers(stack.layers, f"{at}.layers", 1)
    if _unrolled(stack.layers, 1) > MOST_LAYERS:
        found = f"There are more than {MOST_LAYERS:,} layers once repeats are unrolled."
        yield Violation(f"{at}.layers", found)


def _unrolled(layers: Sequence[Layer], depth: int) -> int:
    """Layers that `layers` make, bodies and shortcuts of residual layers included."""
    total = 0
    for layer in layers:
        inner = 0
        if layer.residual is not None and depth <= DEEPEST:
            residual = layer.residual
            inner = _unrolled(residual.body, depth + 1) + _unrolled(residual.shortcut, depth + 1)
        total += max(layer.repeat, 1) * (1 + inner)
    return total


def _layers(layers: Sequence[Layer], at: str, depth: int) -> Violations:
    if depth > DEEPEST:
        yield Violation(at, f"Layers are nested more than {DEEPEST} deep.")
        return
    if not layers:
        yield Violation(at, "must have at least one layer.")
    for index, layer in enumerate(layers):
        yield from _layer(layer, f"{at}[{index}]", depth)


def _layer(layer: Layer, at: str, depth: int) -> Violations:
    yield from text(f"{at}.name", layer.name, longest=100)
    yield from whole(f"{at}.repeat", layer.repeat, 1, MOST_LAYERS, unset=True)
    kinds = [name for name in LAYER_KINDS if getattr(layer, name) is not None]
    if not kinds:
        yield Violation(at, f"must say what it is: one of {', '.join(LAYER_KINDS)}.")
    elif len(kinds) > 1:
        yield Violation(at, f"must be only one of {', '.join(kinds)}.")
    for kind in kinds:
        if kind == "residual":
            yield from _residual(getattr(layer, kind), f"{at}.{kind}", depth)
        elif kind in _RULES:
            yield from _RULES[kind](getattr(layer, kind), f"{at}.{kind}")


def _residual(residual: Residual, at: str, depth: int) -> Violations:
    yield from _layers(residual.body, f"{at}.body", depth + 1)
    if residual.shortcut:
        yield from _layers(residual.shortcut, f"{at}.shortcut", depth + 1)


def _size(at: str, value: int, *, unset: bool = False) -> Violations:
    return whole(at, value, 1, INT32_MAX, unset=unset)


def _linear(linear: Linear, at: str) -> Violations:
    yield from _size(f"{at}.out_features", linear.out_features)
    yield from _size(f"{at}.in_features", linear.in_features, unset=True)


def _any_convolution(layer: Convolution, at: str) -> Violations:
    yield from _size(f"{at}.out_channels", layer.out_channels)
    yield from _size(f"{at}.in_channels", layer.in_channels, unset=True)
    yield from sizes(f"{at}.kernel_size", layer.kernel_size, most=SPATIAL, required=True)
    yield from sizes(f"{at}.stride", layer.stride, most=SPATIAL)
    yield from sizes(f"{at}.padding", layer.padding, most=SPATIAL, low=0)
    yield from sizes(f"{at}.dilation", layer.dilation, most=SPATIAL)
    yield from sizes(f"{at}.output_padding", layer.output_padding, most=SPATIAL, low=0)
    if layer.groups != -1:
        yield from _size(f"{at}.groups", layer.groups, unset=True)
    for name in ("out_channels", "in_channels"):
        channels = getattr(layer, name)
        if layer.groups > 1 and channels > 0 and channels % layer.groups:
            wrong = f"{channels} {name} do not divide into {layer.groups} groups."
            yield Violation(f"{at}.groups", wrong)


def _convolution(layer: Convolution, at: str) -> Violations:
    yield from _any_convolution(layer, at)
    yield from unused(
        f"{at}.output_padding",
        any(layer.output_padding),
        "Only transposed convolutions have an output padding.",
    )
    if not layer.same_padding:
        return
    if any(size % 2 == 0 for size in layer.kernel_size):
        yield Violation(f"{at}.kernel_size", "must be odd for same_padding.")
    if any(step != 1 for step in layer.stride):
        yield Violation(f"{at}.stride", "must be 1 for same_padding.")


def _transposed_convolution(layer: Convolution, at: str) -> Violations:
    yield from _any_convolution(layer, at)
    wrong = "Transposed convolutions have no same padding; give padding and output_padding."
    yield from unused(f"{at}.same_padding", layer.same_padding, wrong)


def _pooling(pooling: Pooling, at: str) -> Violations:
    adaptive = pooling.type in _ADAPTIVE
    required = not adaptive
    yield from sizes(f"{at}.kernel_size", pooling.kernel_size, most=SPATIAL, required=required)
    yield from sizes(f"{at}.stride", pooling.stride, most=SPATIAL)
    yield from sizes(f"{at}.padding", pooling.padding, most=SPATIAL, low=0)
    yield from sizes(f"{at}.output_size", pooling.output_size, most=SPATIAL)
    for name in ("kernel_size", "stride", "padding"):
        wrong = "Adaptive pooling takes an output_size only."
        yield from unused(f"{at}.{name}", adaptive and bool(getattr(pooling, name)), wrong)
    wrong = "Only adaptive pooling takes an output_size."
    yield from unused(f"{at}.output_size", not adaptive and bool(pooling.output_size), wrong)
    for padding, size in _paired(pooling.padding, pooling.kernel_size):
        if padding > size // 2:
            wrong = f"{padding} is more than half of the kernel size {size}."
            yield Violation(f"{at}.padding", wrong)


def _paired(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """The two lists side by side; one number stands for all dimensions."""
    if len(left) == 1:
        return [(left[0], value) for value in right]
    if len(right) == 1:
        return [(value, right[0]) for value in left]
    return list(zip(left, right, strict=False))


def _normalization(layer: Normalization, at: str) -> Violations:
    if layer.type is NormalizationType.GROUP:
        yield from _size(f"{at}.num_groups", layer.num_groups)
    else:
        wrong = "Only GROUP normalisation takes num_groups."
        yield from unused(f"{at}.num_groups", layer.num_groups != 0, wrong)


def _dropout(layer: Dropout, at: str) -> Violations:
    yield from fraction(f"{at}.p", layer.p, high=1)


def _embedding(layer: Embedding, at: str) -> Violations:
    yield from _size(f"{at}.num_embeddings", layer.num_embeddings)
    yield from _size(f"{at}.embedding_dim", layer.embedding_dim)


def _multi_head_attention(layer: MultiHeadAttention, at: str) -> Violations:
    yield from _size(f"{at}.num_heads", layer.num_heads)
    yield from fraction(f"{at}.dropout", layer.dropout, high=1)


def _transformer_encoder_layer(layer: TransformerEncoderLayer, at: str) -> Violations:
    yield from _size(f"{at}.num_heads", layer.num_heads)
    yield from _size(f"{at}.dim_feedforward", layer.dim_feedforward, unset=True)
    yield from fraction(f"{at}.dropout", layer.dropout, high=1)
    if layer.activation not in _ENCODER_ACTIVATIONS:
        yield Violation(f"{at}.activation", f"must be RELU or GELU, not {layer.activation.name}.")


def _recurrent(layer: Recurrent, at: str) -> Violations:
    yield from _size(f"{at}.hidden_size", layer.hidden_size)
    yield from whole(f"{at}.num_layers", layer.num_layers, 1, MOST_LAYERS, unset=True)
    yield from fraction(f"{at}.dropout", layer.dropout, high=1)


def _upsample(layer: Upsample, at: str) -> Violations:
    yield from whole(f"{at}.scale_factor", layer.scale_factor, 1, 64, unset=True)


def _reshape(layer: Reshape, at: str) -> Violations:
    if layer.shape.count(-1) > 1:
        yield Violation(f"{at}.shape", "Only one entry may be -1.")
    known = [1 if size == -1 else size for size in layer.shape]
    yield from sizes(f"{at}.shape", known, most=8, required=True)


_RULES: dict[str, Callable[[Any, str], Violations]] = {
    "linear": _linear,
    "convolution": _convolution,
    "transposed_convolution": _transposed_convolution,
    "pooling": _pooling,
    "normalization": _normalization,
    "dropout": _dropout,
    "embedding": _embedding,
    "multi_head_attention": _multi_head_attention,
    "transformer_encoder_layer": _transformer_encoder_layer,
    "recurrent": _recurrent,
    "upsample": _upsample,
    "reshape": _reshape,
}
