import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
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

class Scheduler(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULER_UNSPECIFIED: _ClassVar[Scheduler]
    SCHEDULER_SLURM: _ClassVar[Scheduler]
    SCHEDULER_KUBERNETES: _ClassVar[Scheduler]
    SCHEDULER_DRA: _ClassVar[Scheduler]
    SCHEDULER_KUEUE: _ClassVar[Scheduler]
    SCHEDULER_KAI: _ClassVar[Scheduler]
    SCHEDULER_HAMI: _ClassVar[Scheduler]
    SCHEDULER_VOLCANO: _ClassVar[Scheduler]
    SCHEDULER_HTCONDOR: _ClassVar[Scheduler]
    SCHEDULER_RAY: _ClassVar[Scheduler]
    SCHEDULER_SKYPILOT: _ClassVar[Scheduler]

class DeviceType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_TYPE_UNSPECIFIED: _ClassVar[DeviceType]
    DEVICE_TYPE_CUDA: _ClassVar[DeviceType]
    DEVICE_TYPE_CPU: _ClassVar[DeviceType]

class ProfileStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROFILE_STAGE_UNSPECIFIED: _ClassVar[ProfileStage]
    PROFILE_STAGE_QUEUED: _ClassVar[ProfileStage]
    PROFILE_STAGE_BUILDING: _ClassVar[ProfileStage]
    PROFILE_STAGE_WARMING_UP: _ClassVar[ProfileStage]
    PROFILE_STAGE_MEASURING: _ClassVar[ProfileStage]
SCHEDULER_UNSPECIFIED: Scheduler
SCHEDULER_SLURM: Scheduler
SCHEDULER_KUBERNETES: Scheduler
SCHEDULER_DRA: Scheduler
SCHEDULER_KUEUE: Scheduler
SCHEDULER_KAI: Scheduler
SCHEDULER_HAMI: Scheduler
SCHEDULER_VOLCANO: Scheduler
SCHEDULER_HTCONDOR: Scheduler
SCHEDULER_RAY: Scheduler
SCHEDULER_SKYPILOT: Scheduler
DEVICE_TYPE_UNSPECIFIED: DeviceType
DEVICE_TYPE_CUDA: DeviceType
DEVICE_TYPE_CPU: DeviceType
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
    __slots__ = ("estimate", "profile")
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    estimate: _estimate_pb2.MemoryEstimate
    profile: MeasuredProfile
    def __init__(self, estimate: _Optional[_Union[_estimate_pb2.MemoryEstimate, _Mapping]] = ..., profile: _Optional[_Union[MeasuredProfile, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("job", "gpus", "global_batch_size", "data_parallel_size", "headroom_fraction", "confidence", "measurement_budget", "scheduler")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_FRACTION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_BUDGET_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.TrainingJob
    gpus: _containers.RepeatedCompositeFieldContainer[_gpus_pb2.GpuTarget]
    global_batch_size: int
    data_parallel_size: int
    headroom_fraction: float
    confidence: float
    measurement_budget: _duration_pb2.Duration
    scheduler: Scheduler
    def __init__(self, job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., gpus: _Optional[_Iterable[_Union[_gpus_pb2.GpuTarget, _Mapping]]] = ..., global_batch_size: _Optional[int] = ..., data_parallel_size: _Optional[int] = ..., headroom_fraction: _Optional[float] = ..., confidence: _Optional[float] = ..., measurement_budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., scheduler: _Optional[_Union[Scheduler, str]] = ...) -> None: ...

class PlanJobResponse(_message.Message):
    __slots__ = ("estimate", "batch_sizes", "accumulation", "placements", "profile", "measurement_notes", "scheduler_request", "job_digest")
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_NOTES_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    JOB_DIGEST_FIELD_NUMBER: _ClassVar[int]
    estimate: _estimate_pb2.MemoryEstimate
    batch_sizes: _containers.RepeatedCompositeFieldContainer[_estimate_pb2.BatchSizeRecommendation]
    accumulation: _estimate_pb2.AccumulationPlan
    placements: _containers.RepeatedCompositeFieldContainer[_estimate_pb2.Placement]
    profile: MeasuredProfile
    measurement_notes: _containers.RepeatedScalarFieldContainer[str]
    scheduler_request: str
    job_digest: str
    def __init__(self, estimate: _Optional[_Union[_estimate_pb2.MemoryEstimate, _Mapping]] = ..., batch_sizes: _Optional[_Iterable[_Union[_estimate_pb2.BatchSizeRecommendation, _Mapping]]] = ..., accumulation: _Optional[_Union[_estimate_pb2.AccumulationPlan, _Mapping]] = ..., placements: _Optional[_Iterable[_Union[_estimate_pb2.Placement, _Mapping]]] = ..., profile: _Optional[_Union[MeasuredProfile, _Mapping]] = ..., measurement_notes: _Optional[_Iterable[str]] = ..., scheduler_request: _Optional[str] = ..., job_digest: _Optional[str] = ...) -> None: ...

class ProfileMemoryRequest(_message.Message):
    __slots__ = ("job", "step_count", "memory_limit_bytes", "time_limit", "device_type", "gpu_type", "warmup_step_count", "wait_for_gpu", "find_batch_size")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_GPU_FIELD_NUMBER: _ClassVar[int]
    FIND_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.TrainingJob
    step_count: int
    memory_limit_bytes: int
    time_limit: _duration_pb2.Duration
    device_type: DeviceType
    gpu_type: str
    warmup_step_count: int
    wait_for_gpu: bool
    find_batch_size: bool
    def __init__(self, job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., step_count: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ..., time_limit: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., device_type: _Optional[_Union[DeviceType, str]] = ..., gpu_type: _Optional[str] = ..., warmup_step_count: _Optional[int] = ..., wait_for_gpu: bool = ..., find_batch_size: bool = ...) -> None: ...

class ProfileMemoryResponse(_message.Message):
    __slots__ = ("progress", "profile")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    progress: ProfileProgress
    profile: MeasuredProfile
    def __init__(self, progress: _Optional[_Union[ProfileProgress, _Mapping]] = ..., profile: _Optional[_Union[MeasuredProfile, _Mapping]] = ...) -> None: ...

class ProfileProgress(_message.Message):
    __slots__ = ("stage", "queue_position", "step", "step_count", "peak_reserved_bytes", "expected_wait", "micro_batch_size", "peak_allocated_bytes")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_WAIT_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PEAK_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    stage: ProfileStage
    queue_position: int
    step: int
    step_count: int
    peak_reserved_bytes: int
    expected_wait: _duration_pb2.Duration
    micro_batch_size: int
    peak_allocated_bytes: int
    def __init__(self, stage: _Optional[_Union[ProfileStage, str]] = ..., queue_position: _Optional[int] = ..., step: _Optional[int] = ..., step_count: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ..., expected_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., micro_batch_size: _Optional[int] = ..., peak_allocated_bytes: _Optional[int] = ...) -> None: ...

class MeasuredProfile(_message.Message):
    __slots__ = ("device_name", "peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "out_of_memory", "memory_limit_bytes", "step_count", "step_time", "library_versions", "device_type", "gpu_type", "profile_id", "job", "job_digest", "create_time", "warmup_step_count", "micro_batch_size", "context_before_bytes", "context_after_bytes", "step_time_p10", "step_time_p90", "samples_per_second", "phases", "curve", "throughput", "largest_micro_batch_size", "fastest_micro_batch_size", "notes", "requested_bytes", "host", "shared", "prediction")
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
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    JOB_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_BEFORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_AFTER_BYTES_FIELD_NUMBER: _ClassVar[int]
    STEP_TIME_P10_FIELD_NUMBER: _ClassVar[int]
    STEP_TIME_P90_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    FASTEST_MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    device_name: str
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    out_of_memory: bool
    memory_limit_bytes: int
    step_count: int
    step_time: _duration_pb2.Duration
    library_versions: _containers.ScalarMap[str, str]
    device_type: DeviceType
    gpu_type: str
    profile_id: str
    job: _job_pb2.TrainingJob
    job_digest: str
    create_time: _timestamp_pb2.Timestamp
    warmup_step_count: int
    micro_batch_size: int
    context_before_bytes: int
    context_after_bytes: int
    step_time_p10: _duration_pb2.Duration
    step_time_p90: _duration_pb2.Duration
    samples_per_second: float
    phases: _containers.RepeatedCompositeFieldContainer[PhasePeak]
    curve: _containers.RepeatedCompositeFieldContainer[MemoryPoint]
    throughput: _containers.RepeatedCompositeFieldContainer[ThroughputPoint]
    largest_micro_batch_size: int
    fastest_micro_batch_size: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    requested_bytes: int
    host: str
    shared: bool
    prediction: Prediction
    def __init__(self, device_name: _Optional[str] = ..., peak_allocated_bytes: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ..., device_used_bytes: _Optional[int] = ..., out_of_memory: bool = ..., memory_limit_bytes: _Optional[int] = ..., step_count: _Optional[int] = ..., step_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., library_versions: _Optional[_Mapping[str, str]] = ..., device_type: _Optional[_Union[DeviceType, str]] = ..., gpu_type: _Optional[str] = ..., profile_id: _Optional[str] = ..., job: _Optional[_Union[_job_pb2.TrainingJob, _Mapping]] = ..., job_digest: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., warmup_step_count: _Optional[int] = ..., micro_batch_size: _Optional[int] = ..., context_before_bytes: _Optional[int] = ..., context_after_bytes: _Optional[int] = ..., step_time_p10: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., step_time_p90: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., samples_per_second: _Optional[float] = ..., phases: _Optional[_Iterable[_Union[PhasePeak, _Mapping]]] = ..., curve: _Optional[_Iterable[_Union[MemoryPoint, _Mapping]]] = ..., throughput: _Optional[_Iterable[_Union[ThroughputPoint, _Mapping]]] = ..., largest_micro_batch_size: _Optional[int] = ..., fastest_micro_batch_size: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ..., requested_bytes: _Optional[int] = ..., host: _Optional[str] = ..., shared: bool = ..., prediction: _Optional[_Union[Prediction, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("peak_allocated_bytes", "peak_reserved_bytes", "context_bytes", "family", "version")
    PEAK_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    context_bytes: int
    family: str
    version: str
    def __init__(self, peak_allocated_bytes: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ..., context_bytes: _Optional[int] = ..., family: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class PhasePeak(_message.Message):
    __slots__ = ("phase", "peak_allocated_bytes", "peak_reserved_bytes")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PEAK_ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    phase: _estimate_pb2.Phase
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    def __init__(self, phase: _Optional[_Union[_estimate_pb2.Phase, str]] = ..., peak_allocated_bytes: _Optional[int] = ..., peak_reserved_bytes: _Optional[int] = ...) -> None: ...

class MemoryPoint(_message.Message):
    __slots__ = ("event", "phase", "step", "allocated_bytes", "reserved_bytes")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    event: int
    phase: _estimate_pb2.Phase
    step: int
    allocated_bytes: int
    reserved_bytes: int
    def __init__(self, event: _Optional[int] = ..., phase: _Optional[_Union[_estimate_pb2.Phase, str]] = ..., step: _Optional[int] = ..., allocated_bytes: _Optional[int] = ..., reserved_bytes: _Optional[int] = ...) -> None: ...

class ThroughputPoint(_message.Message):
    __slots__ = ("micro_batch_size", "samples_per_second", "peak_reserved_bytes", "out_of_memory")
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    micro_batch_size: int
    samples_per_second: float
    peak_reserved_bytes: int
    out_of_memory: bool
    def __init__(self, micro_batch_size: _Optional[int] = ..., samples_per_second: _Optional[float] = ..., peak_reserved_bytes: _Optional[int] = ..., out_of_memory: bool = ...) -> None: ...

class GetProfileRequest(_message.Message):
    __slots__ = ("profile_id",)
    PROFILE_ID_FIELD_NUMBER: _ClassVar[int]
    profile_id: str
    def __init__(self, profile_id: _Optional[str] = ...) -> None: ...

class GetProfileResponse(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: MeasuredProfile
    def __init__(self, profile: _Optional[_Union[MeasuredProfile, _Mapping]] = ...) -> None: ...

class ListProfilesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "gpu_type", "job_digest")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    JOB_DIGEST_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    gpu_type: str
    job_digest: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., gpu_type: _Optional[str] = ..., job_digest: _Optional[str] = ...) -> None: ...

class ListProfilesResponse(_message.Message):
    __slots__ = ("profiles", "next_page_token")
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    profiles: _containers.RepeatedCompositeFieldContainer[MeasuredProfile]
    next_page_token: str
    def __init__(self, profiles: _Optional[_Iterable[_Union[MeasuredProfile, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

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
