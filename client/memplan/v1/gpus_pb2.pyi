from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GpuType(_message.Message):
    __slots__ = ("name", "aliases", "total_bytes", "usable_bytes", "context_bytes", "compute_capability", "multiprocessor_count", "mig_parent", "mig_instance_count", "sources")
    class SourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    USABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    MULTIPROCESSOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIG_PARENT_FIELD_NUMBER: _ClassVar[int]
    MIG_INSTANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    name: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    total_bytes: int
    usable_bytes: int
    context_bytes: int
    compute_capability: str
    multiprocessor_count: int
    mig_parent: str
    mig_instance_count: int
    sources: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., total_bytes: _Optional[int] = ..., usable_bytes: _Optional[int] = ..., context_bytes: _Optional[int] = ..., compute_capability: _Optional[str] = ..., multiprocessor_count: _Optional[int] = ..., mig_parent: _Optional[str] = ..., mig_instance_count: _Optional[int] = ..., sources: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GpuTarget(_message.Message):
    __slots__ = ("gpu_type", "free_bytes")
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    gpu_type: str
    free_bytes: int
    def __init__(self, gpu_type: _Optional[str] = ..., free_bytes: _Optional[int] = ...) -> None: ...
