from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PoolingType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOLING_TYPE_UNSPECIFIED: _ClassVar[PoolingType]
    POOLING_TYPE_MAX: _ClassVar[PoolingType]
    POOLING_TYPE_AVERAGE: _ClassVar[PoolingType]
    POOLING_TYPE_ADAPTIVE_MAX: _ClassVar[PoolingType]
    POOLING_TYPE_ADAPTIVE_AVERAGE: _ClassVar[PoolingType]

class NormalizationType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORMALIZATION_TYPE_UNSPECIFIED: _ClassVar[NormalizationType]
    NORMALIZATION_TYPE_BATCH: _ClassVar[NormalizationType]
    NORMALIZATION_TYPE_LAYER: _ClassVar[NormalizationType]
    NORMALIZATION_TYPE_GROUP: _ClassVar[NormalizationType]
    NORMALIZATION_TYPE_INSTANCE: _ClassVar[NormalizationType]
    NORMALIZATION_TYPE_RMS: _ClassVar[NormalizationType]

class ActivationType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_TYPE_UNSPECIFIED: _ClassVar[ActivationType]
    ACTIVATION_TYPE_RELU: _ClassVar[ActivationType]
    ACTIVATION_TYPE_GELU: _ClassVar[ActivationType]
    ACTIVATION_TYPE_SILU: _ClassVar[ActivationType]
    ACTIVATION_TYPE_TANH: _ClassVar[ActivationType]
    ACTIVATION_TYPE_SIGMOID: _ClassVar[ActivationType]
    ACTIVATION_TYPE_LEAKY_RELU: _ClassVar[ActivationType]
    ACTIVATION_TYPE_ELU: _ClassVar[ActivationType]
    ACTIVATION_TYPE_MISH: _ClassVar[ActivationType]
    ACTIVATION_TYPE_HARDSWISH: _ClassVar[ActivationType]
    ACTIVATION_TYPE_SOFTPLUS: _ClassVar[ActivationType]
    ACTIVATION_TYPE_SOFTMAX: _ClassVar[ActivationType]

class RecurrentType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECURRENT_TYPE_UNSPECIFIED: _ClassVar[RecurrentType]
    RECURRENT_TYPE_LSTM: _ClassVar[RecurrentType]
    RECURRENT_TYPE_GRU: _ClassVar[RecurrentType]
    RECURRENT_TYPE_RNN: _ClassVar[RecurrentType]

class SequencePoolingType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEQUENCE_POOLING_TYPE_UNSPECIFIED: _ClassVar[SequencePoolingType]
    SEQUENCE_POOLING_TYPE_MEAN: _ClassVar[SequencePoolingType]
    SEQUENCE_POOLING_TYPE_FIRST: _ClassVar[SequencePoolingType]
    SEQUENCE_POOLING_TYPE_LAST: _ClassVar[SequencePoolingType]
POOLING_TYPE_UNSPECIFIED: PoolingType
POOLING_TYPE_MAX: PoolingType
POOLING_TYPE_AVERAGE: PoolingType
POOLING_TYPE_ADAPTIVE_MAX: PoolingType
POOLING_TYPE_ADAPTIVE_AVERAGE: PoolingType
NORMALIZATION_TYPE_UNSPECIFIED: NormalizationType
NORMALIZATION_TYPE_BATCH: NormalizationType
NORMALIZATION_TYPE_LAYER: NormalizationType
NORMALIZATION_TYPE_GROUP: NormalizationType
NORMALIZATION_TYPE_INSTANCE: NormalizationType
NORMALIZATION_TYPE_RMS: NormalizationType
ACTIVATION_TYPE_UNSPECIFIED: ActivationType
ACTIVATION_TYPE_RELU: ActivationType
ACTIVATION_TYPE_GELU: ActivationType
ACTIVATION_TYPE_SILU: ActivationType
ACTIVATION_TYPE_TANH: ActivationType
ACTIVATION_TYPE_SIGMOID: ActivationType
ACTIVATION_TYPE_LEAKY_RELU: ActivationType
ACTIVATION_TYPE_ELU: ActivationType
ACTIVATION_TYPE_MISH: ActivationType
ACTIVATION_TYPE_HARDSWISH: ActivationType
ACTIVATION_TYPE_SOFTPLUS: ActivationType
ACTIVATION_TYPE_SOFTMAX: ActivationType
RECURRENT_TYPE_UNSPECIFIED: RecurrentType
RECURRENT_TYPE_LSTM: RecurrentType
RECURRENT_TYPE_GRU: RecurrentType
RECURRENT_TYPE_RNN: RecurrentType
SEQUENCE_POOLING_TYPE_UNSPECIFIED: SequencePoolingType
SEQUENCE_POOLING_TYPE_MEAN: SequencePoolingType
SEQUENCE_POOLING_TYPE_FIRST: SequencePoolingType
SEQUENCE_POOLING_TYPE_LAST: SequencePoolingType

class LayerStack(_message.Message):
    __slots__ = ("layers",)
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    def __init__(self, layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("name", "repeat", "flatten", "linear", "convolution", "transposed_convolution", "pooling", "normalization", "dropout", "activation", "embedding", "multi_head_attention", "transformer_encoder_layer", "recurrent", "residual", "upsample", "sequence_pooling", "reshape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPEAT_FIELD_NUMBER: _ClassVar[int]
    FLATTEN_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    CONVOLUTION_FIELD_NUMBER: _ClassVar[int]
    TRANSPOSED_CONVOLUTION_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    MULTI_HEAD_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMER_ENCODER_LAYER_FIELD_NUMBER: _ClassVar[int]
    RECURRENT_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    UPSAMPLE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_POOLING_FIELD_NUMBER: _ClassVar[int]
    RESHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    repeat: int
    flatten: Flatten
    linear: Linear
    convolution: Convolution
    transposed_convolution: Convolution
    pooling: Pooling
    normalization: Normalization
    dropout: Dropout
    activation: Activation
    embedding: Embedding
    multi_head_attention: MultiHeadAttention
    transformer_encoder_layer: TransformerEncoderLayer
    recurrent: Recurrent
    residual: Residual
    upsample: Upsample
    sequence_pooling: SequencePooling
    reshape: Reshape
    def __init__(self, name: _Optional[str] = ..., repeat: _Optional[int] = ..., flatten: _Optional[_Union[Flatten, _Mapping]] = ..., linear: _Optional[_Union[Linear, _Mapping]] = ..., convolution: _Optional[_Union[Convolution, _Mapping]] = ..., transposed_convolution: _Optional[_Union[Convolution, _Mapping]] = ..., pooling: _Optional[_Union[Pooling, _Mapping]] = ..., normalization: _Optional[_Union[Normalization, _Mapping]] = ..., dropout: _Optional[_Union[Dropout, _Mapping]] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ..., embedding: _Optional[_Union[Embedding, _Mapping]] = ..., multi_head_attention: _Optional[_Union[MultiHeadAttention, _Mapping]] = ..., transformer_encoder_layer: _Optional[_Union[TransformerEncoderLayer, _Mapping]] = ..., recurrent: _Optional[_Union[Recurrent, _Mapping]] = ..., residual: _Optional[_Union[Residual, _Mapping]] = ..., upsample: _Optional[_Union[Upsample, _Mapping]] = ..., sequence_pooling: _Optional[_Union[SequencePooling, _Mapping]] = ..., reshape: _Optional[_Union[Reshape, _Mapping]] = ...) -> None: ...

class Flatten(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Linear(_message.Message):
    __slots__ = ("out_features", "in_features", "bias")
    OUT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    IN_FEATURES_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    out_features: int
    in_features: int
    bias: bool
    def __init__(self, out_features: _Optional[int] = ..., in_features: _Optional[int] = ..., bias: bool = ...) -> None: ...

class Convolution(_message.Message):
    __slots__ = ("out_channels", "in_channels", "kernel_size", "stride", "padding", "same_padding", "dilation", "groups", "bias", "output_padding")
    OUT_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    IN_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    SAME_PADDING_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PADDING_FIELD_NUMBER: _ClassVar[int]
    out_channels: int
    in_channels: int
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    same_padding: bool
    dilation: _containers.RepeatedScalarFieldContainer[int]
    groups: int
    bias: bool
    output_padding: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, out_channels: _Optional[int] = ..., in_channels: _Optional[int] = ..., kernel_size: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., same_padding: bool = ..., dilation: _Optional[_Iterable[int]] = ..., groups: _Optional[int] = ..., bias: bool = ..., output_padding: _Optional[_Iterable[int]] = ...) -> None: ...

class Pooling(_message.Message):
    __slots__ = ("type", "kernel_size", "stride", "padding", "output_size")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    type: PoolingType
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    output_size: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, type: _Optional[_Union[PoolingType, str]] = ..., kernel_size: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., output_size: _Optional[_Iterable[int]] = ...) -> None: ...

class Normalization(_message.Message):
    __slots__ = ("type", "num_groups", "affine")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NUM_GROUPS_FIELD_NUMBER: _ClassVar[int]
    AFFINE_FIELD_NUMBER: _ClassVar[int]
    type: NormalizationType
    num_groups: int
    affine: bool
    def __init__(self, type: _Optional[_Union[NormalizationType, str]] = ..., num_groups: _Optional[int] = ..., affine: bool = ...) -> None: ...

class Dropout(_message.Message):
    __slots__ = ("p",)
    P_FIELD_NUMBER: _ClassVar[int]
    p: float
    def __init__(self, p: _Optional[float] = ...) -> None: ...

class Activation(_message.Message):
    __slots__ = ("type", "inplace")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    INPLACE_FIELD_NUMBER: _ClassVar[int]
    type: ActivationType
    inplace: bool
    def __init__(self, type: _Optional[_Union[ActivationType, str]] = ..., inplace: bool = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("num_embeddings", "embedding_dim")
    NUM_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIM_FIELD_NUMBER: _ClassVar[int]
    num_embeddings: int
    embedding_dim: int
    def __init__(self, num_embeddings: _Optional[int] = ..., embedding_dim: _Optional[int] = ...) -> None: ...

class MultiHeadAttention(_message.Message):
    __slots__ = ("num_heads", "dropout", "bias")
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    num_heads: int
    dropout: float
    bias: bool
    def __init__(self, num_heads: _Optional[int] = ..., dropout: _Optional[float] = ..., bias: bool = ...) -> None: ...

class TransformerEncoderLayer(_message.Message):
    __slots__ = ("num_heads", "dim_feedforward", "dropout", "norm_first", "activation")
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    DIM_FEEDFORWARD_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    NORM_FIRST_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    num_heads: int
    dim_feedforward: int
    dropout: float
    norm_first: bool
    activation: ActivationType
    def __init__(self, num_heads: _Optional[int] = ..., dim_feedforward: _Optional[int] = ..., dropout: _Optional[float] = ..., norm_first: bool = ..., activation: _Optional[_Union[ActivationType, str]] = ...) -> None: ...

class Recurrent(_message.Message):
    __slots__ = ("type", "hidden_size", "num_layers", "bidirectional", "dropout")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    BIDIRECTIONAL_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    type: RecurrentType
    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    def __init__(self, type: _Optional[_Union[RecurrentType, str]] = ..., hidden_size: _Optional[int] = ..., num_layers: _Optional[int] = ..., bidirectional: bool = ..., dropout: _Optional[float] = ...) -> None: ...

class Residual(_message.Message):
    __slots__ = ("body", "shortcut")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SHORTCUT_FIELD_NUMBER: _ClassVar[int]
    body: _containers.RepeatedCompositeFieldContainer[Layer]
    shortcut: _containers.RepeatedCompositeFieldContainer[Layer]
    def __init__(self, body: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., shortcut: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ...) -> None: ...

class Upsample(_message.Message):
    __slots__ = ("scale_factor",)
    SCALE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    scale_factor: int
    def __init__(self, scale_factor: _Optional[int] = ...) -> None: ...

class SequencePooling(_message.Message):
    __slots__ = ("type",)
    TYPE_FIELD_NUMBER: _ClassVar[int]
    type: SequencePoolingType
    def __init__(self, type: _Optional[_Union[SequencePoolingType, str]] = ...) -> None: ...

class Reshape(_message.Message):
    __slots__ = ("shape",)
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shape: _Optional[_Iterable[int]] = ...) -> None: ...
