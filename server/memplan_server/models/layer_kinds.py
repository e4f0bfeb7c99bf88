"""A function for each kind of layer: (layer, what flows in, place) -> (module, what flows on)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from memplan.types import (
    Activation,
    ActivationType,
    Dropout,
    Embedding,
    Flatten,
    Linear,
    MultiHeadAttention,
    Normalization,
    NormalizationType,
    Recurrent,
    RecurrentType,
    Reshape,
    SequencePooling,
    SequencePoolingType,
    TransformerEncoderLayer,
    Upsample,
)
from memplan_server.models import layer_modules as modules
from memplan_server.models.layer_flow import Flow, Place
from memplan_server.models.layer_shapes import reshaped, spoken
from memplan_server.models.layer_spatial import convolution, pooling, transposed_convolution

__all__ = ["KINDS"]

Made = tuple[nn.Module, Flow]
_SEQUENCE = "one sequence [sequence, features] per sample"
_ENCODER_ACTIVATIONS = {
    ActivationType.UNSPECIFIED: "relu",
    ActivationType.RELU: "relu",
    ActivationType.GELU: "gelu",
}


def _or(value: Any, default: Any) -> Any:
    """`value`, or the default of the contract when it was not given."""
    not_given = value is None or value == 0 or getattr(value, "value", "") == "unspecified"
    return default if not_given else value


def _flatten(_: Flatten, flow: Flow, place: Place) -> Made:
    return nn.Flatten(), flow.viewed(math.prod(flow.shape))


def _linear(layer: Linear, flow: Flow, place: Place) -> Made:
    place.numbers(flow)
    features, given = flow.shape[-1], layer.in_features
    if given and given != features:
        said = f"is given {given} input features, but {features} flow in"
        said += f" (the last of {spoken(flow.shape)})" if len(flow.shape) > 1 else ""
        flat = len(flow.shape) > 1 and given == math.prod(flow.shape)
        place.fail("in_features", f"{said}{'; put a flatten layer before it' if flat else ''}.")
    place.bounded("out_features", features, layer.out_features)
    if len(flow.shape) > 2:
        said = f"layer {place.label} acts on the last dimension of {spoken(flow.shape)}"
        flow.input.assumptions[said] = None
    module = nn.Linear(features, layer.out_features, bias=layer.bias is not False)
    return module, flow.to(*flow.shape[:-1], layer.out_features)


def _normalization(layer: Normalization, flow: Flow, place: Place) -> Made:
    place.numbers(flow)
    kind = _or(layer.type, NormalizationType.BATCH)
    affine = layer.affine
    if affine is None:
        affine = kind is not NormalizationType.INSTANCE
    return _NORMALIZATIONS[kind](layer, flow, place, affine), flow.to(*flow.shape)


def _batch_norm(_: Normalization, flow: Flow, place: Place, affine: bool) -> nn.Module:
    place.rank(flow, (1, 2, 3, 4), "[features] or [channels, 1 to 3 spatial dimensions]")
    norm = modules.BATCH_NORMS[max(0, len(flow.shape) - 2)]
    return norm(flow.shape[0], affine=affine)


def _instance_norm(_: Normalization, flow: Flow, place: Place, affine: bool) -> nn.Module:
    place.rank(flow, (2, 3, 4), "[channels, 1 to 3 spatial dimensions]")
    return modules.INSTANCE_NORMS[len(flow.shape) - 2](flow.shape[0], affine=affine)


def _group_norm(layer: Normalization, flow: Flow, place: Place, affine: bool) -> nn.Module:
    channels = flow.shape[0]
    if layer.num_groups < 1 or channels % layer.num_groups:
        place.fail(
            "num_groups", f"cannot divide {channels} channels into {layer.num_groups} groups."
        )
    return nn.GroupNorm(layer.num_groups, channels, affine=affine)


def _layer_norm(_: Normalization, flow: Flow, place: Place, affine: bool) -> nn.Module:
    return nn.LayerNorm(flow.shape[-1], elementwise_affine=affine)


def _rms_norm(_: Normalization, flow: Flow, place: Place, affine: bool) -> nn.Module:
    return nn.RMSNorm(flow.shape[-1], elementwise_affine=affine)


_NORMALIZATIONS: dict[
    NormalizationType, Callable[[Normalization, Flow, Place, bool], nn.Module]
] = {
    NormalizationType.BATCH: _batch_norm,
    NormalizationType.LAYER: _layer_norm,
    NormalizationType.GROUP: _group_norm,
    NormalizationType.INSTANCE: _instance_norm,
    NormalizationType.RMS: _rms_norm,
}


def _dropout(layer: Dropout, flow: Flow, place: Place) -> Made:
    place.numbers(flow)
    return nn.Dropout(0.5 if layer.p is None else layer.p), flow.to(*flow.shape)


def _activation(layer: Activation, flow: Flow, place: Place) -> Made:
    place.numbers(flow)
    made = modules.ACTIVATIONS[_or(layer.type, ActivationType.RELU)]
    options: dict[str, Any] = {"dim": -1} if made is nn.Softmax else {}
    if layer.inplace and made in modules.INPLACE:
        options["inplace"] = True
    return made(**options), flow.to(*flow.shape)


def _embedding(layer: Embedding, flow: Flow, place: Place) -> Made:
    place.indices(flow)
    place.bounded("num_embeddings", layer.num_embeddings, layer.embedding_dim)
    module = nn.Embedding(layer.num_embeddings, layer.embedding_dim)
    return module, flow.to(*flow.shape, layer.embedding_dim)


def _heads(layer: MultiHeadAttention | TransformerEncoderLayer, flow: Flow, place: Place) -> int:
    """The features that flow in, which the heads must divide."""
    place.numbers(flow)
    place.rank(flow, (2,), _SEQUENCE)
    features = flow.shape[-1]
    if layer.num_heads < 1 or features % layer.num_heads:
        said = f"cannot divide the {features} features that flow in among {layer.num_heads} heads."
        place.fail("num_heads", said)
    place.bounded("", 3, features, features)
    return features


def _multi_head_attention(layer: MultiHeadAttention, flow: Flow, place: Place) -> Made:
    features = _heads(layer, flow, place)
    bias = layer.bias is not False
    module = modules.SelfAttention(features, layer.num_heads, layer.dropout, bias)
    flow.input.assumptions["multi-head attention is called with need_weights=False"] = None
    return module, flow.to(*flow.shape)


def _transformer_encoder_layer(layer: TransformerEncoderLayer, flow: Flow, place: Place) -> Made:
    features = _heads(layer, flow, place)
    wide = _or(layer.dim_feedforward, 2048)
    place.bounded("dim_feedforward", features, wide)
    if layer.activation not in _ENCODER_ACTIVATIONS:
        place.fail("activation", f"takes RELU or GELU, not {layer.activation.name}.")
    module = nn.TransformerEncoderLayer(
        features,
        layer.num_heads,
        wide,
        dropout=0.1 if layer.dropout is None else layer.dropout,
        activation=_ENCODER_ACTIVATIONS[layer.activation],
        batch_first=True,
        norm_first=layer.norm_first,
    )
    return module, flow.to(*flow.shape)


def _recurrent(layer: Recurrent, flow: Flow, place: Place) -> Made:
    place.numbers(flow)
    place.rank(flow, (2,), _SEQUENCE)
    sequence, features = flow.shape
    directions = 2 if layer.bidirectional else 1
    place.bounded(
        "hidden_size", 4, layer.hidden_size, max(features, directions * layer.hidden_size)
    )
    layers = _or(layer.num_layers, 1)
    make: Callable[..., nn.RNNBase] = modules.RECURRENT[_or(layer.type, RecurrentType.LSTM)]
    recurrence = make(
        features,
        layer.hidden_size,
        layers,
        batch_first=True,
        bidirectional=layer.bidirectional,
        dropout=layer.dropout if layers > 1 else 0.0,
    )
    return modules.Recurrence(recurrence), flow.to(sequence, directions * layer.hidden_size)


def _upsample(layer: Upsample, flow: Flow, place: Place) -> Made:
    place.numbers(flow)
    place.rank(flow, (2, 3, 4), "[channels, 1 to 3 spatial dimensions]")
    factor = _or(layer.scale_factor, 2)
    channels, *spatial = flow.shape
    shape = (channels, *(factor * n for n in spatial))
    return nn.Upsample(scale_factor=factor, mode="nearest"), flow.to(*shape)


def _sequence_pooling(layer: SequencePooling, flow: Flow, place: Place) -> Made:
    place.numbers(flow)
    place.rank(flow, (2,), _SEQUENCE)
    kind = _or(layer.type, SequencePoolingType.MEAN)
    return modules.SequencePooled(kind), flow.to(flow.shape[-1])


def _reshape(layer: Reshape, flow: Flow, place: Place) -> Made:
    shape = reshaped(flow.shape, layer.shape)
    if shape is None:
        said = f"cannot make {spoken(layer.shape)} of the {spoken(flow.shape)} that flows in."
        place.fail("shape", said)
    return modules.Reshaped(shape), flow.viewed(*shape)


KINDS: dict[str, Callable[[Any, Flow, Place], Made]] = {
    "flatten": _flatten,
    "linear": _linear,
    "convolution": convolution,
    "transposed_convolution": transposed_convolution,
    "pooling": pooling,
    "normalization": _normalization,
    "dropout": _dropout,
    "activation": _activation,
    "embedding": _embedding,
    "multi_head_attention": _multi_head_attention,
    "transformer_encoder_layer": _transformer_encoder_layer,
    "recurrent": _recurrent,
    "upsample": _upsample,
    "sequence_pooling": _sequence_pooling,
    "reshape": _reshape,
}
"""By the layer's field; `residual`, which holds layers itself, is the stack's business."""
