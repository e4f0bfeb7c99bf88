from memplan.v1 import gpus_pb2 as _gpus_pb2
from memplan.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_FORWARD: _ClassVar[Phase]
    PHASE_BACKWARD: _ClassVar[Phase]
    PHASE_OPTIMIZER_STEP: _ClassVar[Phase]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_FITS: _ClassVar[Verdict]
    VERDICT_DOES_NOT_FIT: _ClassVar[Verdict]
    VERDICT_UNCERTAIN: _ClassVar[Verdict]
PHASE_UNSPECIFIED: Phase
PHASE_FORWARD: Phase
PHASE_BACKWARD: Phase
PHASE_OPTIMIZER_STEP: Phase
VERDICT_UNSPECIFIED: Verdict
VERDICT_FITS: Verdict
VERDICT_DOES_NOT_FIT: Verdict
VERDICT_UNCERTAIN: Verdict

class MemoryEstimate(_message.Message):
    __slots__ = ("gpu_type", "micro_batch_size", "peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "upper_bound_bytes", "lower_bound_bytes", "confidence", "peak_phase", "breakdown", "model_state", "top_modules", "assumptions", "library_versions")
    class LibraryVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PEAK_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPPER_BOUND_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOWER_BOUND_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PEAK_PHASE_FIELD_NUMBER: _ClassVar[int]
    BREAKDOWN_FIELD_NUMBER: _ClassVar[int]
    MODEL_STATE_FIELD_NUMBER: _ClassVar[int]
    TOP_MODULES_FIELD_NUMBER: _ClassVar[int]
    ASSUMPTIONS_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    gpu_type: str
    micro_batch_size: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    upper_bound_bytes: int
    lower_bound_bytes: int
    confidence: float
    peak_phase: Phase
    breakdown: MemoryBreakdown
    model_state: ModelState
    top_modules: _containers.RepeatedCompositeFieldContainer[ModuleMemory]
    assumptions: _containers.RepeatedScalarFieldContainer[str]
    library_versions: _containers.ScalarMap[str, str]
    def __init__(self, gpu_type: _Optional[str] = ..., micro_batch_size: _Optional[int] = ..., peak_allocated_bytes: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ..., device_used_bytes: _Optional[int] = ..., upper_bound_bytes: _Optional[int] = ..., lower_bound_bytes: _Optional[int] = ..., confidence: _Optional[float] = ..., peak_phase: _Optional[_Union[Phase, str]] = ..., breakdown: _Optional[_Union[MemoryBreakdown, _Mapping]] = ..., model_state: _Optional[_Union[ModelState, _Mapping]] = ..., top_modules: _Optional[_Iterable[_Union[ModuleMemory, _Mapping]]] = ..., assumptions: _Optional[_Iterable[str]] = ..., library_versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class MemoryBreakdown(_message.Message):
    __slots__ = ("parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "buffer_bytes", "input_bytes", "activation_bytes", "temporary_bytes", "autocast_copy_bytes", "workspace_bytes", "context_bytes", "fragmentation_bytes")
    PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUFFER_BYTES_FIELD_NUMBER: _ClassVar[int]
    INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_BYTES_FIELD_NUMBER: _ClassVar[int]
    TEMPORARY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AUTOCAST_COPY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTATION_BYTES_FIELD_NUMBER: _ClassVar[int]
    parameter_bytes: int
    gradient_bytes: int
    optimizer_state_bytes: int
    buffer_bytes: int
    input_bytes: int
    activation_bytes: int
    temporary_bytes: int
    autocast_copy_bytes: int
    workspace_bytes: int
    context_bytes: int
    fragmentation_bytes: int
    def __init__(self, parameter_bytes: _Optional[int] = ..., gradient_bytes: _Optional[int] = ..., optimizer_state_bytes: _Optional[int] = ..., buffer_bytes: _Optional[int] = ..., input_bytes: _Optional[int] = ..., activation_bytes: _Optional[int] = ..., temporary_bytes: _Optional[int] = ..., autocast_copy_bytes: _Optional[int] = ..., workspace_bytes: _Optional[int] = ..., context_bytes: _Optional[int] = ..., fragmentation_bytes: _Optional[int] = ...) -> None: ...

class ModelState(_message.Message):
    __slots__ = ("parameter_count", "parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "buffer_bytes")
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUFFER_BYTES_FIELD_NUMBER: _ClassVar[int]
    parameter_count: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_state_bytes: int
    buffer_bytes: int
    def __init__(self, parameter_count: _Optional[int] = ..., parameter_bytes: _Optional[int] = ..., gradient_bytes: _Optional[int] = ..., optimizer_state_bytes: _Optional[int] = ..., buffer_bytes: _Optional[int] = ...) -> None: ...

class ModuleMemory(_message.Message):
    __slots__ = ("module", "type", "activation_bytes")
    MODULE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_BYTES_FIELD_NUMBER: _ClassVar[int]
    module: str
    type: str
    activation_bytes: int
    def __init__(self, module: _Optional[str] = ..., type: _Optional[str] = ..., activation_bytes: _Optional[int] = ...) -> None: ...

class BatchSizeRecommendation(_message.Message):
    __slots__ = ("gpu", "capacity_bytes", "max_batch_size", "max_device_used_bytes", "recommended_batch_size", "recommended_device_used_bytes", "multiple_of", "formula", "curve", "reason", "confidence")
    GPU_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_DEVICE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_DEVICE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MULTIPLE_OF_FIELD_NUMBER: _ClassVar[int]
    FORMULA_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    gpu: _gpus_pb2.GpuTarget
    capacity_bytes: int
    max_batch_size: int
    max_device_used_bytes: int
    recommended_batch_size: int
    recommended_device_used_bytes: int
    multiple_of: int
    formula: BatchSizeFormula
    curve: _containers.RepeatedCompositeFieldContainer[BatchSizePoint]
    reason: str
    confidence: float
    def __init__(self, gpu: _Optional[_Union[_gpus_pb2.GpuTarget, _Mapping]] = ..., capacity_bytes: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., max_device_used_bytes: _Optional[int] = ..., recommended_batch_size: _Optional[int] = ..., recommended_device_used_bytes: _Optional[int] = ..., multiple_of: _Optional[int] = ..., formula: _Optional[_Union[BatchSizeFormula, _Mapping]] = ..., curve: _Optional[_Iterable[_Union[BatchSizePoint, _Mapping]]] = ..., reason: _Optional[str] = ..., confidence: _Optional[float] = ...) -> None: ...

class BatchSizeFormula(_message.Message):
    __slots__ = ("fixed_bytes", "bytes_per_sample", "batch_size")
    FIXED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    fixed_bytes: int
    bytes_per_sample: int
    batch_size: int
    def __init__(self, fixed_bytes: _Optional[int] = ..., bytes_per_sample: _Optional[int] = ..., batch_size: _Optional[int] = ...) -> None: ...

class BatchSizePoint(_message.Message):
    __slots__ = ("batch_size", "peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PEAK_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    def __init__(self, batch_size: _Optional[int] = ..., peak_allocated_bytes: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ..., device_used_bytes: _Optional[int] = ...) -> None: ...

class AccumulationPlan(_message.Message):
    __slots__ = ("gpu", "feasible", "global_batch_size", "data_parallel_size", "micro_batch_size", "accumulation_steps", "last_micro_batch_size", "max_micro_batch_size", "device_used_bytes", "reason", "advice", "remedies", "confidence")
    GPU_FIELD_NUMBER: _ClassVar[int]
    FEASIBLE_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    LAST_MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    REMEDIES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    gpu: _gpus_pb2.GpuTarget
    feasible: bool
    global_batch_size: int
    data_parallel_size: int
    micro_batch_size: int
    accumulation_steps: int
    last_micro_batch_size: int
    max_micro_batch_size: int
    device_used_bytes: int
    reason: str
    advice: _containers.RepeatedScalarFieldContainer[str]
    remedies: _containers.RepeatedCompositeFieldContainer[Remedy]
    confidence: float
    def __init__(self, gpu: _Optional[_Union[_gpus_pb2.GpuTarget, _Mapping]] = ..., feasible: bool = ..., global_batch_size: _Optional[int] = ..., data_parallel_size: _Optional[int] = ..., micro_batch_size: _Optional[int] = ..., accumulation_steps: _Optional[int] = ..., last_micro_batch_size: _Optional[int] = ..., max_micro_batch_size: _Optional[int] = ..., device_used_bytes: _Optional[int] = ..., reason: _Optional[str] = ..., advice: _Optional[_Iterable[str]] = ..., remedies: _Optional[_Iterable[_Union[Remedy, _Mapping]]] = ..., confidence: _Optional[float] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("gpu", "verdict", "capacity_bytes", "device_used_bytes", "upper_bound_bytes", "spare_bytes", "missing_bytes", "reason", "remedies", "confidence")
    GPU_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPPER_BOUND_BYTES_FIELD_NUMBER: _ClassVar[int]
    SPARE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MISSING_BYTES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REMEDIES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    gpu: _gpus_pb2.GpuTarget
    verdict: Verdict
    capacity_bytes: int
    device_used_bytes: int
    upper_bound_bytes: int
    spare_bytes: int
    missing_bytes: int
    reason: str
    remedies: _containers.RepeatedCompositeFieldContainer[Remedy]
    confidence: float
    def __init__(self, gpu: _Optional[_Union[_gpus_pb2.GpuTarget, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., capacity_bytes: _Optional[int] = ..., device_used_bytes: _Optional[int] = ..., upper_bound_bytes: _Optional[int] = ..., spare_bytes: _Optional[int] = ..., missing_bytes: _Optional[int] = ..., reason: _Optional[str] = ..., remedies: _Optional[_Iterable[_Union[Remedy, _Mapping]]] = ..., confidence: _Optional[float] = ...) -> None: ...

class Remedy(_message.Message):
    __slots__ = ("description", "micro_batch_size", "accumulation_steps", "precision", "gpu_type", "activation_checkpointing", "data_parallel")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_CHECKPOINTING_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_FIELD_NUMBER: _ClassVar[int]
    description: str
    micro_batch_size: int
    accumulation_steps: int
    precision: _job_pb2.Precision
    gpu_type: str
    activation_checkpointing: bool
    data_parallel: _job_pb2.DataParallel
    def __init__(self, description: _Optional[str] = ..., micro_batch_size: _Optional[int] = ..., accumulation_steps: _Optional[int] = ..., precision: _Optional[_Union[_job_pb2.Precision, str]] = ..., gpu_type: _Optional[str] = ..., activation_checkpointing: bool = ..., data_parallel: _Optional[_Union[_job_pb2.DataParallel, _Mapping]] = ...) -> None: ...
