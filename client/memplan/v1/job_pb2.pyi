from google.protobuf import struct_pb2 as _struct_pb2
from memplan.v1 import layers_pb2 as _layers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_BFLOAT16: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]
    DATA_TYPE_INT32: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_BOOL: _ClassVar[DataType]
    DATA_TYPE_FLOAT64: _ClassVar[DataType]
    DATA_TYPE_INT16: _ClassVar[DataType]
    DATA_TYPE_INT8: _ClassVar[DataType]
    DATA_TYPE_COMPLEX64: _ClassVar[DataType]
    DATA_TYPE_COMPLEX128: _ClassVar[DataType]

class Loss(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_UNSPECIFIED: _ClassVar[Loss]
    LOSS_CROSS_ENTROPY: _ClassVar[Loss]
    LOSS_BINARY_CROSS_ENTROPY_WITH_LOGITS: _ClassVar[Loss]
    LOSS_MSE: _ClassVar[Loss]
    LOSS_L1: _ClassVar[Loss]
    LOSS_MODEL: _ClassVar[Loss]
    LOSS_MEAN: _ClassVar[Loss]

class OptimizerType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_TYPE_UNSPECIFIED: _ClassVar[OptimizerType]
    OPTIMIZER_TYPE_SGD: _ClassVar[OptimizerType]
    OPTIMIZER_TYPE_ADAM: _ClassVar[OptimizerType]
    OPTIMIZER_TYPE_ADAMW: _ClassVar[OptimizerType]
    OPTIMIZER_TYPE_ADAGRAD: _ClassVar[OptimizerType]
    OPTIMIZER_TYPE_RMSPROP: _ClassVar[OptimizerType]
    OPTIMIZER_TYPE_ADAFACTOR: _ClassVar[OptimizerType]
    OPTIMIZER_TYPE_CUSTOM: _ClassVar[OptimizerType]

class OptimizerImplementation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_IMPLEMENTATION_UNSPECIFIED: _ClassVar[OptimizerImplementation]
    OPTIMIZER_IMPLEMENTATION_FOREACH: _ClassVar[OptimizerImplementation]
    OPTIMIZER_IMPLEMENTATION_FUSED: _ClassVar[OptimizerImplementation]
    OPTIMIZER_IMPLEMENTATION_SINGLE: _ClassVar[OptimizerImplementation]

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FP32: _ClassVar[Precision]
    PRECISION_TF32: _ClassVar[Precision]
    PRECISION_AMP_FP16: _ClassVar[Precision]
    PRECISION_AMP_BF16: _ClassVar[Precision]
    PRECISION_BF16: _ClassVar[Precision]
    PRECISION_FP16: _ClassVar[Precision]

class MemoryFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_FORMAT_UNSPECIFIED: _ClassVar[MemoryFormat]
    MEMORY_FORMAT_CONTIGUOUS: _ClassVar[MemoryFormat]
    MEMORY_FORMAT_CHANNELS_LAST: _ClassVar[MemoryFormat]

class Routing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTING_UNSPECIFIED: _ClassVar[Routing]
    ROUTING_BALANCED: _ClassVar[Routing]
    ROUTING_WORST_CASE: _ClassVar[Routing]

class Padding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PADDING_UNSPECIFIED: _ClassVar[Padding]
    PADDING_NONE: _ClassVar[Padding]
    PADDING_PADDED: _ClassVar[Padding]
    PADDING_PACKED: _ClassVar[Padding]

class ZeroGrad(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZERO_GRAD_UNSPECIFIED: _ClassVar[ZeroGrad]
    ZERO_GRAD_BEFORE_FORWARD: _ClassVar[ZeroGrad]
    ZERO_GRAD_BEFORE_BACKWARD: _ClassVar[ZeroGrad]
    ZERO_GRAD_AFTER_STEP: _ClassVar[ZeroGrad]
    ZERO_GRAD_NEVER: _ClassVar[ZeroGrad]

class GradientClipping(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRADIENT_CLIPPING_UNSPECIFIED: _ClassVar[GradientClipping]
    GRADIENT_CLIPPING_NONE: _ClassVar[GradientClipping]
    GRADIENT_CLIPPING_NORM: _ClassVar[GradientClipping]
    GRADIENT_CLIPPING_VALUE: _ClassVar[GradientClipping]

class DataParallelStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_PARALLEL_STRATEGY_UNSPECIFIED: _ClassVar[DataParallelStrategy]
    DATA_PARALLEL_STRATEGY_NONE: _ClassVar[DataParallelStrategy]
    DATA_PARALLEL_STRATEGY_DDP: _ClassVar[DataParallelStrategy]
    DATA_PARALLEL_STRATEGY_FSDP: _ClassVar[DataParallelStrategy]

class GraphTensorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRAPH_TENSOR_KIND_UNSPECIFIED: _ClassVar[GraphTensorKind]
    GRAPH_TENSOR_KIND_PARAMETER: _ClassVar[GraphTensorKind]
    GRAPH_TENSOR_KIND_BUFFER: _ClassVar[GraphTensorKind]
    GRAPH_TENSOR_KIND_CONSTANT: _ClassVar[GraphTensorKind]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_BFLOAT16: DataType
DATA_TYPE_INT64: DataType
DATA_TYPE_INT32: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_BOOL: DataType
DATA_TYPE_FLOAT64: DataType
DATA_TYPE_INT16: DataType
DATA_TYPE_INT8: DataType
DATA_TYPE_COMPLEX64: DataType
DATA_TYPE_COMPLEX128: DataType
LOSS_UNSPECIFIED: Loss
LOSS_CROSS_ENTROPY: Loss
LOSS_BINARY_CROSS_ENTROPY_WITH_LOGITS: Loss
LOSS_MSE: Loss
LOSS_L1: Loss
LOSS_MODEL: Loss
LOSS_MEAN: Loss
OPTIMIZER_TYPE_UNSPECIFIED: OptimizerType
OPTIMIZER_TYPE_SGD: OptimizerType
OPTIMIZER_TYPE_ADAM: OptimizerType
OPTIMIZER_TYPE_ADAMW: OptimizerType
OPTIMIZER_TYPE_ADAGRAD: OptimizerType
OPTIMIZER_TYPE_RMSPROP: OptimizerType
OPTIMIZER_TYPE_ADAFACTOR: OptimizerType
OPTIMIZER_TYPE_CUSTOM: OptimizerType
OPTIMIZER_IMPLEMENTATION_UNSPECIFIED: OptimizerImplementation
OPTIMIZER_IMPLEMENTATION_FOREACH: OptimizerImplementation
OPTIMIZER_IMPLEMENTATION_FUSED: OptimizerImplementation
OPTIMIZER_IMPLEMENTATION_SINGLE: OptimizerImplementation
PRECISION_UNSPECIFIED: Precision
PRECISION_FP32: Precision
PRECISION_TF32: Precision
PRECISION_AMP_FP16: Precision
PRECISION_AMP_BF16: Precision
PRECISION_BF16: Precision
PRECISION_FP16: Precision
MEMORY_FORMAT_UNSPECIFIED: MemoryFormat
MEMORY_FORMAT_CONTIGUOUS: MemoryFormat
MEMORY_FORMAT_CHANNELS_LAST: MemoryFormat
ROUTING_UNSPECIFIED: Routing
ROUTING_BALANCED: Routing
ROUTING_WORST_CASE: Routing
PADDING_UNSPECIFIED: Padding
PADDING_NONE: Padding
PADDING_PADDED: Padding
PADDING_PACKED: Padding
ZERO_GRAD_UNSPECIFIED: ZeroGrad
ZERO_GRAD_BEFORE_FORWARD: ZeroGrad
ZERO_GRAD_BEFORE_BACKWARD: ZeroGrad
ZERO_GRAD_AFTER_STEP: ZeroGrad
ZERO_GRAD_NEVER: ZeroGrad
GRADIENT_CLIPPING_UNSPECIFIED: GradientClipping
GRADIENT_CLIPPING_NONE: GradientClipping
GRADIENT_CLIPPING_NORM: GradientClipping
GRADIENT_CLIPPING_VALUE: GradientClipping
DATA_PARALLEL_STRATEGY_UNSPECIFIED: DataParallelStrategy
DATA_PARALLEL_STRATEGY_NONE: DataParallelStrategy
DATA_PARALLEL_STRATEGY_DDP: DataParallelStrategy
DATA_PARALLEL_STRATEGY_FSDP: DataParallelStrategy
GRAPH_TENSOR_KIND_UNSPECIFIED: GraphTensorKind
GRAPH_TENSOR_KIND_PARAMETER: GraphTensorKind
GRAPH_TENSOR_KIND_BUFFER: GraphTensorKind
GRAPH_TENSOR_KIND_CONSTANT: GraphTensorKind

class TrainingJob(_message.Message):
    __slots__ = ("model", "inputs", "loss", "optimizer", "precision", "memory_format", "loop", "allocator", "micro_batch_size", "cudnn_benchmark", "assumptions", "activation_checkpointing", "data_parallel")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FORMAT_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    ALLOCATOR_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CUDNN_BENCHMARK_FIELD_NUMBER: _ClassVar[int]
    ASSUMPTIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_CHECKPOINTING_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    inputs: _containers.RepeatedCompositeFieldContainer[InputTensor]
    loss: Loss
    optimizer: Optimizer
    precision: Precision
    memory_format: MemoryFormat
    loop: TrainingLoop
    allocator: AllocatorSettings
    micro_batch_size: int
    cudnn_benchmark: bool
    assumptions: Assumptions
    activation_checkpointing: bool
    data_parallel: DataParallel
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[InputTensor, _Mapping]]] = ..., loss: _Optional[_Union[Loss, str]] = ..., optimizer: _Optional[_Union[Optimizer, _Mapping]] = ..., precision: _Optional[_Union[Precision, str]] = ..., memory_format: _Optional[_Union[MemoryFormat, str]] = ..., loop: _Optional[_Union[TrainingLoop, _Mapping]] = ..., allocator: _Optional[_Union[AllocatorSettings, _Mapping]] = ..., micro_batch_size: _Optional[int] = ..., cudnn_benchmark: bool = ..., assumptions: _Optional[_Union[Assumptions, _Mapping]] = ..., activation_checkpointing: bool = ..., data_parallel: _Optional[_Union[DataParallel, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("catalog", "layer_stack", "graph")
    CATALOG_FIELD_NUMBER: _ClassVar[int]
    LAYER_STACK_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    catalog: CatalogModel
    layer_stack: _layers_pb2.LayerStack
    graph: Graph
    def __init__(self, catalog: _Optional[_Union[CatalogModel, _Mapping]] = ..., layer_stack: _Optional[_Union[_layers_pb2.LayerStack, _Mapping]] = ..., graph: _Optional[_Union[Graph, _Mapping]] = ...) -> None: ...

class CatalogModel(_message.Message):
    __slots__ = ("name", "config", "task")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    name: str
    config: _struct_pb2.Struct
    task: str
    def __init__(self, name: _Optional[str] = ..., config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., task: _Optional[str] = ...) -> None: ...

class InputTensor(_message.Message):
    __slots__ = ("name", "shape", "dtype")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: DataType
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DataType, str]] = ...) -> None: ...

class Optimizer(_message.Message):
    __slots__ = ("type", "implementation", "momentum", "amsgrad", "centered", "nesterov", "weight_decay", "state_count", "groups")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    IMPLEMENTATION_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    AMSGRAD_FIELD_NUMBER: _ClassVar[int]
    CENTERED_FIELD_NUMBER: _ClassVar[int]
    NESTEROV_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    STATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    type: OptimizerType
    implementation: OptimizerImplementation
    momentum: float
    amsgrad: bool
    centered: bool
    nesterov: bool
    weight_decay: float
    state_count: int
    groups: _containers.RepeatedCompositeFieldContainer[OptimizerGroup]
    def __init__(self, type: _Optional[_Union[OptimizerType, str]] = ..., implementation: _Optional[_Union[OptimizerImplementation, str]] = ..., momentum: _Optional[float] = ..., amsgrad: bool = ..., centered: bool = ..., nesterov: bool = ..., weight_decay: _Optional[float] = ..., state_count: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[OptimizerGroup, _Mapping]]] = ...) -> None: ...

class OptimizerGroup(_message.Message):
    __slots__ = ("implementation", "momentum", "amsgrad", "centered", "nesterov", "weight_decay")
    IMPLEMENTATION_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    AMSGRAD_FIELD_NUMBER: _ClassVar[int]
    CENTERED_FIELD_NUMBER: _ClassVar[int]
    NESTEROV_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    implementation: OptimizerImplementation
    momentum: float
    amsgrad: bool
    centered: bool
    nesterov: bool
    weight_decay: float
    def __init__(self, implementation: _Optional[_Union[OptimizerImplementation, str]] = ..., momentum: _Optional[float] = ..., amsgrad: bool = ..., centered: bool = ..., nesterov: bool = ..., weight_decay: _Optional[float] = ...) -> None: ...

class Assumptions(_message.Message):
    __slots__ = ("routing", "padding", "images_per_sample", "boxes_per_image", "conditions_are_false")
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    IMAGES_PER_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    BOXES_PER_IMAGE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_ARE_FALSE_FIELD_NUMBER: _ClassVar[int]
    routing: Routing
    padding: Padding
    images_per_sample: int
    boxes_per_image: int
    conditions_are_false: bool
    def __init__(self, routing: _Optional[_Union[Routing, str]] = ..., padding: _Optional[_Union[Padding, str]] = ..., images_per_sample: _Optional[int] = ..., boxes_per_image: _Optional[int] = ..., conditions_are_false: bool = ...) -> None: ...

class TrainingLoop(_message.Message):
    __slots__ = ("zero_grad", "zero_grad_set_to_none", "gradient_clipping", "accumulation_steps", "keep_outputs")
    ZERO_GRAD_FIELD_NUMBER: _ClassVar[int]
    ZERO_GRAD_SET_TO_NONE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_CLIPPING_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    KEEP_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    zero_grad: ZeroGrad
    zero_grad_set_to_none: bool
    gradient_clipping: GradientClipping
    accumulation_steps: int
    keep_outputs: bool
    def __init__(self, zero_grad: _Optional[_Union[ZeroGrad, str]] = ..., zero_grad_set_to_none: bool = ..., gradient_clipping: _Optional[_Union[GradientClipping, str]] = ..., accumulation_steps: _Optional[int] = ..., keep_outputs: bool = ...) -> None: ...

class DataParallel(_message.Message):
    __slots__ = ("strategy", "gradient_as_bucket_view", "bucket_cap_mb", "shard_count", "reshard_after_forward")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_AS_BUCKET_VIEW_FIELD_NUMBER: _ClassVar[int]
    BUCKET_CAP_MB_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESHARD_AFTER_FORWARD_FIELD_NUMBER: _ClassVar[int]
    strategy: DataParallelStrategy
    gradient_as_bucket_view: bool
    bucket_cap_mb: int
    shard_count: int
    reshard_after_forward: bool
    def __init__(self, strategy: _Optional[_Union[DataParallelStrategy, str]] = ..., gradient_as_bucket_view: bool = ..., bucket_cap_mb: _Optional[int] = ..., shard_count: _Optional[int] = ..., reshard_after_forward: bool = ...) -> None: ...

class AllocatorSettings(_message.Message):
    __slots__ = ("expandable_segments", "roundup_power2_divisions", "max_split_size_mb", "garbage_collection_threshold")
    EXPANDABLE_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    ROUNDUP_POWER2_DIVISIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SPLIT_SIZE_MB_FIELD_NUMBER: _ClassVar[int]
    GARBAGE_COLLECTION_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    expandable_segments: bool
    roundup_power2_divisions: int
    max_split_size_mb: int
    garbage_collection_threshold: float
    def __init__(self, expandable_segments: bool = ..., roundup_power2_divisions: _Optional[int] = ..., max_split_size_mb: _Optional[int] = ..., garbage_collection_threshold: _Optional[float] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("name", "operators", "modules", "tensors", "inputs", "contexts", "nodes", "outputs", "loss", "fixed_batch_size", "assumptions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPERATORS_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    FIXED_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ASSUMPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    operators: _containers.RepeatedScalarFieldContainer[str]
    modules: _containers.RepeatedCompositeFieldContainer[GraphModule]
    tensors: _containers.RepeatedCompositeFieldContainer[GraphTensor]
    inputs: _containers.RepeatedCompositeFieldContainer[GraphInput]
    contexts: _containers.RepeatedCompositeFieldContainer[GraphContext]
    nodes: _containers.RepeatedCompositeFieldContainer[GraphNode]
    outputs: _containers.RepeatedCompositeFieldContainer[GraphOutput]
    loss: int
    fixed_batch_size: int
    assumptions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., operators: _Optional[_Iterable[str]] = ..., modules: _Optional[_Iterable[_Union[GraphModule, _Mapping]]] = ..., tensors: _Optional[_Iterable[_Union[GraphTensor, _Mapping]]] = ..., inputs: _Optional[_Iterable[_Union[GraphInput, _Mapping]]] = ..., contexts: _Optional[_Iterable[_Union[GraphContext, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[GraphNode, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[GraphOutput, _Mapping]]] = ..., loss: _Optional[int] = ..., fixed_batch_size: _Optional[int] = ..., assumptions: _Optional[_Iterable[str]] = ...) -> None: ...

class GraphModule(_message.Message):
    __slots__ = ("path", "type")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    path: str
    type: str
    def __init__(self, path: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class GraphTensor(_message.Message):
    __slots__ = ("kind", "module", "name", "shape", "strides", "dtype", "frozen", "optimizer_group", "tied_names")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODULE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STRIDES_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_GROUP_FIELD_NUMBER: _ClassVar[int]
    TIED_NAMES_FIELD_NUMBER: _ClassVar[int]
    kind: GraphTensorKind
    module: int
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    strides: _containers.RepeatedScalarFieldContainer[int]
    dtype: DataType
    frozen: bool
    optimizer_group: int
    tied_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[_Union[GraphTensorKind, str]] = ..., module: _Optional[int] = ..., name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., strides: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., frozen: bool = ..., optimizer_group: _Optional[int] = ..., tied_names: _Optional[_Iterable[str]] = ...) -> None: ...

class GraphInput(_message.Message):
    __slots__ = ("name", "shape", "dtype", "is_target")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    IS_TARGET_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedCompositeFieldContainer[GraphSize]
    dtype: DataType
    is_target: bool
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[_Union[GraphSize, _Mapping]]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., is_target: bool = ...) -> None: ...

class GraphSize(_message.Message):
    __slots__ = ("fixed", "per_sample", "per_sample_pair", "divisor")
    FIXED_FIELD_NUMBER: _ClassVar[int]
    PER_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    PER_SAMPLE_PAIR_FIELD_NUMBER: _ClassVar[int]
    DIVISOR_FIELD_NUMBER: _ClassVar[int]
    fixed: int
    per_sample: int
    per_sample_pair: int
    divisor: int
    def __init__(self, fixed: _Optional[int] = ..., per_sample: _Optional[int] = ..., per_sample_pair: _Optional[int] = ..., divisor: _Optional[int] = ...) -> None: ...

class GraphContext(_message.Message):
    __slots__ = ("no_grad", "autocast", "autocast_dtype", "checkpoint")
    NO_GRAD_FIELD_NUMBER: _ClassVar[int]
    AUTOCAST_FIELD_NUMBER: _ClassVar[int]
    AUTOCAST_DTYPE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    no_grad: bool
    autocast: bool
    autocast_dtype: DataType
    checkpoint: int
    def __init__(self, no_grad: bool = ..., autocast: bool = ..., autocast_dtype: _Optional[_Union[DataType, str]] = ..., checkpoint: _Optional[int] = ...) -> None: ...

class GraphNode(_message.Message):
    __slots__ = ("operator", "module", "context", "arguments", "result_count", "releases")
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    MODULE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    RESULT_COUNT_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    operator: int
    module: int
    context: int
    arguments: _containers.RepeatedCompositeFieldContainer[GraphArgument]
    result_count: int
    releases: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, operator: _Optional[int] = ..., module: _Optional[int] = ..., context: _Optional[int] = ..., arguments: _Optional[_Iterable[_Union[GraphArgument, _Mapping]]] = ..., result_count: _Optional[int] = ..., releases: _Optional[_Iterable[int]] = ...) -> None: ...

class GraphArgument(_message.Message):
    __slots__ = ("name", "value", "integer", "number", "truth", "text", "dtype", "size", "list")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: int
    integer: int
    number: float
    truth: bool
    text: str
    dtype: DataType
    size: GraphSize
    list: GraphArgumentList
    def __init__(self, name: _Optional[str] = ..., value: _Optional[int] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ..., truth: bool = ..., text: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., size: _Optional[_Union[GraphSize, _Mapping]] = ..., list: _Optional[_Union[GraphArgumentList, _Mapping]] = ...) -> None: ...

class GraphArgumentList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[GraphArgument]
    def __init__(self, items: _Optional[_Iterable[_Union[GraphArgument, _Mapping]]] = ...) -> None: ...

class GraphOutput(_message.Message):
    __slots__ = ("value", "name")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    value: int
    name: str
    def __init__(self, value: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...
