import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from memplan.v1 import estimate_pb2 as _estimate_pb2
from memplan.v1 import gpus_pb2 as _gpus_pb2
from memplan.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProfileStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROFILE_STAGE_UNSPECIFIED: _ClassVar[ProfileStage]
    PROFILE_STAGE_QUEUED: _ClassVar[ProfileStage]
    PROFILE_STAGE_BUILDING: _ClassVar[ProfileStage]
    PROFILE_STAGE_WARMING_UP: _ClassVar[ProfileStage]
    PROFILE_STAGE_MEASURING: _ClassVar[ProfileStage]
PROFILE_STAGE_UNSPECIFIED: ProfileStage
PROFILE_STAGE_QUEUED: ProfileStage
PROFILE_STAGE_BUILDING: ProfileStage
PROFILE_STAGE_WARMING_UP: ProfileStage
PROFILE_STAGE_MEASURING: ProfileStage

class EstimateMemoryRequest(_message.Message):
    __slots__ = ("job", "gpu_type", "confidence")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.TrainingJob
    gpu_type: str
    confidence: float
    def __init__(self, job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., gpu_type: _Optional[str] = ..., confidence: _Optional[float] = ...) -> None: ...

class EstimateMemoryResponse(_message.Message):
    __slots__ = ("estimate",)
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    estimate: _estimate_pb2.MemoryEstimate
    def __init__(self, estimate: _Optional[_Union[_estimate_pb2.MemoryEstimate, _Mapping]] = ...) -> None: ...

class RecommendBatchSizeRequest(_message.Message):
    __slots__ = ("job", "gpus", "headroom_fraction", "multiple_of", "max_batch_size", "confidence")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_FRACTION_FIELD_NUMBER: _ClassVar[int]
    MULTIPLE_OF_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.TrainingJob
    gpus: _containers.RepeatedCompositeFieldContainer[_gpus_pb2.GpuTarget]
    headroom_fraction: float
    multiple_of: int
    max_batch_size: int
    confidence: float
    def __init__(self, job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., gpus: _Optional[_Iterable[_Union[_gpus_pb2.GpuTarget, _Mapping]]] = ..., headroom_fraction: _Optional[float] = ..., multiple_of: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., confidence: _Optional[float] = ...) -> None: ...

class RecommendBatchSizeResponse(_message.Message):
    __slots__ = ("batch_sizes",)
    BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    batch_sizes: _containers.RepeatedCompositeFieldContainer[_estimate_pb2.BatchSizeRecommendation]
    def __init__(self, batch_sizes: _Optional[_Iterable[_Union[_estimate_pb2.BatchSizeRecommendation, _Mapping]]] = ...) -> None: ...

class PlanAccumulationRequest(_message.Message):
    __slots__ = ("job", "gpu", "global_batch_size", "data_parallel_size", "headroom_fraction", "confidence")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_FRACTION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.TrainingJob
    gpu: _gpus_pb2.GpuTarget
    global_batch_size: int
    data_parallel_size: int
    headroom_fraction: float
    confidence: float
    def __init__(self, job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., gpu: _Optional[_Union[_gpus_pb2.GpuTarget, _Mapping]] = ..., global_batch_size: _Optional[int] = ..., data_parallel_size: _Optional[int] = ..., headroom_fraction: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class PlanAccumulationResponse(_message.Message):
    __slots__ = ("accumulation",)
    ACCUMULATION_FIELD_NUMBER: _ClassVar[int]
    accumulation: _estimate_pb2.AccumulationPlan
    def __init__(self, accumulation: _Optional[_Union[_estimate_pb2.AccumulationPlan, _Mapping]] = ...) -> None: ...

class PlanJobRequest(_message.Message):
    __slots__ = ("job", "gpus", "global_batch_size", "data_parallel_size", "headroom_fraction", "confidence")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_FRACTION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.TrainingJob
    gpus: _containers.RepeatedCompositeFieldContainer[_gpus_pb2.GpuTarget]
    global_batch_size: int
    data_parallel_size: int
    headroom_fraction: float
    confidence: float
    def __init__(self, job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., gpus: _Optional[_Iterable[_Union[_gpus_pb2.GpuTarget, _Mapping]]] = ..., global_batch_size: _Optional[int] = ..., data_parallel_size: _Optional[int] = ..., headroom_fraction: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class PlanJobResponse(_message.Message):
    __slots__ = ("estimate", "batch_sizes", "accumulation", "placements")
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    estimate: _estimate_pb2.MemoryEstimate
    batch_sizes: _containers.RepeatedCompositeFieldContainer[_estimate_pb2.BatchSizeRecommendation]
    accumulation: _estimate_pb2.AccumulationPlan
    placements: _containers.RepeatedCompositeFieldContainer[_estimate_pb2.Placement]
    def __init__(self, estimate: _Optional[_Union[_estimate_pb2.MemoryEstimate, _Mapping]] = ..., batch_sizes: _Optional[_Iterable[_Union[_estimate_pb2.BatchSizeRecommendation, _Mapping]]] = ..., accumulation: _Optional[_Union[_estimate_pb2.AccumulationPlan, _Mapping]] = ..., placements: _Optional[_Iterable[_Union[_estimate_pb2.Placement, _Mapping]]] = ...) -> None: ...

class ProfileMemoryRequest(_message.Message):
    __slots__ = ("job", "step_count", "memory_limit_bytes", "time_limit")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.TrainingJob
    step_count: int
    memory_limit_bytes: int
    time_limit: _duration_pb2.Duration
    def __init__(self, job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., step_count: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ..., time_limit: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ProfileMemoryResponse(_message.Message):
    __slots__ = ("progress", "profile")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    progress: ProfileProgress
    profile: MeasuredProfile
    def __init__(self, progress: _Optional[_Union[ProfileProgress, _Mapping]] = ..., profile: _Optional[_Union[MeasuredProfile, _Mapping]] = ...) -> None: ...

class ProfileProgress(_message.Message):
    __slots__ = ("stage", "queue_position", "step", "step_count", "peak_reserved_bytes")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    stage: ProfileStage
    queue_position: int
    step: int
    step_count: int
    peak_reserved_bytes: int
    def __init__(self, stage: _Optional[_Union[ProfileStage, str]] = ..., queue_position: _Optional[int] = ..., step: _Optional[int] = ..., step_count: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ...) -> None: ...

class MeasuredProfile(_message.Message):
    __slots__ = ("device_name", "peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "out_of_memory", "memory_limit_bytes", "step_count", "step_time", "library_versions")
    class LibraryVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    PEAK_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_TIME_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    device_name: str
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    out_of_memory: bool
    memory_limit_bytes: int
    step_count: int
    step_time: _duration_pb2.Duration
    library_versions: _containers.ScalarMap[str, str]
    def __init__(self, device_name: _Optional[str] = ..., peak_allocated_bytes: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ..., device_used_bytes: _Optional[int] = ..., out_of_memory: bool = ..., memory_limit_bytes: _Optional[int] = ..., step_count: _Optional[int] = ..., step_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., library_versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListGpuTypesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class ListGpuTypesResponse(_message.Message):
    __slots__ = ("gpu_types", "next_page_token")
    GPU_TYPES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    gpu_types: _containers.RepeatedCompositeFieldContainer[_gpus_pb2.GpuType]
    next_page_token: str
    def __init__(self, gpu_types: _Optional[_Iterable[_Union[_gpus_pb2.GpuType, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "library")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_FIELD_NUMBER: _ClassVar[int]
    name: str
    library: str
    def __init__(self, name: _Optional[str] = ..., library: _Optional[str] = ...) -> None: ...
