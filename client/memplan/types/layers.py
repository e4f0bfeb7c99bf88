"""A model written down layer by layer. Input features are inferred from what flows in.

Counterpart of `proto/memplan/v1/layers.proto`: same names, same meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Activation",
    "ActivationType",
    "Convolution",
    "Dropout",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerStack",
    "Linear",
    "MultiHeadAttention",
    "Normalization",
    "NormalizationType",
    "Pooling",
    "PoolingType",
    "Recurrent",
    "RecurrentType",
    "Reshape",
    "Residual",
    "SequencePooling",
    "SequencePoolingType",
    "TransformerEncoderLayer",
    "Upsample",
]


class PoolingType(StrEnum):
    """Kinds of pooling."""

    UNSPECIFIED = "unspecified"
    """MAX."""
    MAX = "max"
    """nn.MaxPool."""
    AVERAGE = "average"
    """nn.AvgPool."""
    ADAPTIVE_MAX = "adaptive-max"
    """nn.AdaptiveMaxPool."""
    ADAPTIVE_AVERAGE = "adaptive-average"
    """nn.AdaptiveAvgPool."""


class NormalizationType(StrEnum):
    """Kinds of normalisation."""

    UNSPECIFIED = "unspecified"
    """BATCH."""
    BATCH = "batch"
    """nn.BatchNorm1d, 2d or 3d."""
    LAYER = "layer"
    """nn.LayerNorm over the last dimension."""
    GROUP = "group"
    """nn.GroupNorm."""
    INSTANCE = "instance"
    """nn.InstanceNorm1d, 2d or 3d."""
    RMS = "rms"
    """nn.RMSNorm over the last dimension."""


class ActivationType(StrEnum):
    """Activation functions."""

    UNSPECIFIED = "unspecified"
    """RELU."""
    RELU = "relu"
    """nn.ReLU."""
    GELU = "gelu"
    """nn.GELU."""
    SILU = "silu"
    """nn.SiLU."""
    TANH = "tanh"
    """nn.Tanh."""
    SIGMOID = "sigmoid"
    """nn.Sigmoid."""
    LEAKY_RELU = "leaky-relu"
    """nn.LeakyReLU."""
    ELU = "elu"
    """nn.ELU."""
    MISH = "mish"
    """nn.Mish."""
    HARDSWISH = "hardswish"
    """nn.Hardswish."""
    SOFTPLUS = "softplus"
    """nn.Softplus."""
    SOFTMAX = "softmax"
    """nn.Softmax over the last dimension."""


class RecurrentType(StrEnum):
    """Kinds of recurrent layers."""

    UNSPECIFIED = "unspecified"
    """LSTM."""
    LSTM = "lstm"
    """nn.LSTM."""
    GRU = "gru"
    """nn.GRU."""
    RNN = "rnn"
    """nn.RNN with tanh."""


class SequencePoolingType(StrEnum):
    """Which vector stands for a sequence."""

    UNSPECIFIED = "unspecified"
    """MEAN."""
    MEAN = "mean"
    """The mean over positions."""
    FIRST = "first"
    """The first position (a class token)."""
    LAST = "last"
    """The last position (the usual end of an LSTM)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flatten:
    """nn.Flatten: everything but the batch dimension becomes one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """nn.Linear on the last dimension."""

    out_features: int = 0
    """Required, at least 1."""
    in_features: int = 0
    """Checked against what flows in when given. Default: inferred."""
    bias: bool | None = None
    """Default true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Convolution:
    """A convolution. Lists hold one number for all spatial dimensions, or one for each."""

    out_channels: int = 0
    """Required, at least 1."""
    in_channels: int = 0
    """Checked against what flows in when given. Default: inferred."""
    kernel_size: tuple[int, ...] = ()
    """Required."""
    stride: tuple[int, ...] = ()
    """Default 1."""
    padding: tuple[int, ...] = ()
    """Default 0. Ignored when `same_padding`."""
    same_padding: bool = False
    """Padding that keeps the size (kernel_size odd, stride 1). Default false."""
    dilation: tuple[int, ...] = ()
    """Default 1."""
    groups: int = 0
    """Default 1. -1 is depthwise: as many groups as channels."""
    bias: bool | None = None
    """Default true."""
    output_padding: tuple[int, ...] = ()
    """Transposed convolutions only. Default 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooling:
    """Pooling over the spatial dimensions."""

    type: PoolingType = PoolingType.UNSPECIFIED
    """Default: MAX."""
    kernel_size: tuple[int, ...] = ()
    """Required for MAX and AVERAGE."""
    stride: tuple[int, ...] = ()
    """Default: kernel_size."""
    padding: tuple[int, ...] = ()
    """Default 0."""
    output_size: tuple[int, ...] = ()
    """ADAPTIVE types. Default 1 (global pooling)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """A normalisation."""

    type: NormalizationType = NormalizationType.UNSPECIFIED
    """Default: BATCH."""
    num_groups: int = 0
    """GROUP only. Required there; must divide the channels."""
    affine: bool | None = None
    """Learned scale and shift. Default true (false for INSTANCE, as in PyTorch)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropout:
    """nn.Dropout."""

    p: float | None = None
    """Probability, in [0, 1). Default 0.5."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    """An element-wise activation."""

    type: ActivationType = ActivationType.UNSPECIFIED
    """Default: RELU."""
    inplace: bool = False
    """In place, where the function can. Default false."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """nn.Embedding: indices to vectors."""

    num_embeddings: int = 0
    """Size of the vocabulary. Required, at least 1."""
    embedding_dim: int = 0
    """Required, at least 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiHeadAttention:
    """nn.MultiheadAttention(batch_first=True) of a sequence with itself."""

    num_heads: int = 0
    """Required; must divide the features that flow in."""
    dropout: float = 0.0
    """Dropout of the attention weights. Default 0."""
    bias: bool | None = None
    """Default true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerEncoderLayer:
    """nn.TransformerEncoderLayer(batch_first=True)."""

    num_heads: int = 0
    """Required; must divide the features that flow in."""
    dim_feedforward: int = 0
    """Default 2048, as in PyTorch."""
    dropout: float | None = None
    """Default 0.1."""
    norm_first: bool = False
    """Normalise before attention and feed-forward. Default false."""
    activation: ActivationType = ActivationType.UNSPECIFIED
    """RELU or GELU. Default: RELU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recurrent:
    """nn.RNN, nn.LSTM, nn.GRU with batch_first=True over [sequence, features]."""

    type: RecurrentType = RecurrentType.UNSPECIFIED
    """Default: LSTM."""
    hidden_size: int = 0
    """Required, at least 1."""
    num_layers: int = 0
    """Default 1."""
    bidirectional: bool = False
    """Default false."""
    dropout: float = 0.0
    """Dropout between layers. Default 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upsample:
    """nn.Upsample(mode="nearest")."""

    scale_factor: int = 0
    """Factor for each spatial dimension. Default 2. 1 to 64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequencePooling:
    """One vector out of a sequence [sequence, features]."""

    type: SequencePoolingType = SequencePoolingType.UNSPECIFIED
    """Default: MEAN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reshape:
    """Reshape of everything but the batch dimension."""

    shape: tuple[int, ...] = ()
    """New shape of one sample. One entry may be -1: inferred."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """y = body(x) + shortcut(x)."""

    body: tuple[Layer, ...] = ()
    """Layers of the body. At least one."""
    shortcut: tuple[Layer, ...] = ()
    """Layers of the shortcut. Default: none, the identity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer."""

    name: str = ""
    """Name used in messages and breakdowns, at most 100 characters. Default: its position and kind,
    `3.linear`."""
    repeat: int = 0
    """How many copies, each with its own weights, follow one another. Default 1."""
    flatten: Flatten | None = None
    """nn.Flatten."""
    linear: Linear | None = None
    """nn.Linear."""
    convolution: Convolution | None = None
    """nn.Conv1d, 2d or 3d, by what flows in."""
    transposed_convolution: Convolution | None = None
    """nn.ConvTranspose1d, 2d or 3d."""
    pooling: Pooling | None = None
    """Max, average and adaptive pooling, 1-d to 3-d."""
    normalization: Normalization | None = None
    """Batch, layer, group, instance and RMS normalisation."""
    dropout: Dropout | None = None
    """nn.Dropout."""
    activation: Activation | None = None
    """Element-wise activation."""
    embedding: Embedding | None = None
    """nn.Embedding."""
    multi_head_attention: MultiHeadAttention | None = None
    """Self-attention: nn.MultiheadAttention."""
    transformer_encoder_layer: TransformerEncoderLayer | None = None
    """nn.TransformerEncoderLayer."""
    recurrent: Recurrent | None = None
    """nn.RNN, nn.LSTM, nn.GRU, batch first."""
    residual: Residual | None = None
    """y = body(x) + shortcut(x)."""
    upsample: Upsample | None = None
    """nn.Upsample."""
    sequence_pooling: SequencePooling | None = None
    """One vector out of a sequence."""
    reshape: Reshape | None = None
    """Reshape of everything but the batch dimension."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerStack:
    """Layers applied one after the other."""

    layers: tuple[Layer, ...] = ()
    """At least one; at most 2,000 after repeats are unrolled, nested at most 16 deep."""
