"""Protobuf messages to types.

Only the fields that are set are read: the dataclass has the defaults of the others. The quick way
knows no field paths; when it fails, a slow walk finds every place that cannot be represented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.message import Message

from memplan import types
from memplan._schema import MAX_EXACT_INT, Field, Kind, Schema, WireError, per_class, schema_of

__all__ = ["from_proto"]

_REFUSED = (LookupError, ValueError, OverflowError)
"""Unknown enum number, duration or time out of range."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_proto(message: Message) -> Any:
    """The dataclass of `memplan.types` that a message stands for. Raises `WireError`."""
    schema = schema_of(getattr(types, message.DESCRIPTOR.name))
    try:
        return _read(message, schema)
    except _REFUSED as error:
        violations = list(_refused_values(message, schema, ""))
        if not violations:  # a defect of the codec: do not hide it
            raise
        raise WireError(violations) from error


def _read(message: Message, schema: Schema) -> Any:
    readers = _readers(schema.cls)
    values = {}
    for descriptor, value in message.ListFields():
        name, read = readers[descriptor.number]
        values[name] = value if read is None else read(value)
    return schema.cls(**values)


_Reader = Callable[[Any], Any]


@per_class
def _readers(cls: type[Any]) -> dict[int, tuple[str, _Reader | None]]:
    return {f.number: (f.name, _field_reader(f)) for f in schema_of(cls).fields}


def _field_reader(field: Field) -> _Reader | None:
    """`None` where the value is good as it is."""
    read = _element_reader(field)
    if field.is_map:
        return dict
    if field.repeated:
        return tuple if read is None else lambda items: tuple(map(read, items))
    return read


def _element_reader(field: Field) -> _Reader | None:
    if field.kind is Kind.SCALAR:
        return None
    if field.kind is Kind.ENUM:
        return field.enum_members.__getitem__
    if field.kind is Kind.DURATION:
        return _timedelta
    if field.kind is Kind.TIMESTAMP:
        return _datetime
    if field.kind is Kind.STRUCT:
        return _mapping
    return lambda message: _read(message, schema_of(field.type))


def _timedelta(duration: duration_pb2.Duration) -> timedelta:
    if abs(duration.nanos) >= 1_000_000_000:
        raise OverflowError
    # Towards zero, as the fraction has the sign of the whole.
    microseconds = int(duration.nanos / 1000)
    return timedelta(seconds=duration.seconds, microseconds=microseconds)


def _datetime(timestamp: timestamp_pb2.Timestamp) -> datetime:
    if not 0 <= timestamp.nanos < 1_000_000_000:
        raise OverflowError
    since = timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
    return _EPOCH + since


def _mapping(struct: struct_pb2.Struct) -> dict[str, Any]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _mapping(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= MAX_EXACT_INT else number
    return None if kind is None or kind == "null_value" else getattr(value, kind)


def _refused_values(message: Message, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    for descriptor, value in message.ListFields():
        field = schema.by_number[descriptor.number]
        where = f"{path}.{field.name}" if path else field.name
        if field.repeated:
            for index, item in enumerate(value):
                yield from _refused_element(item, field, f"{where}[{index}]")
        elif not field.is_map:
            yield from _refused_element(value, field, where)


def _refused_element(value: Any, field: Field, path: str) -> Iterator[tuple[str, str]]:
    if field.kind is Kind.MESSAGE:
        yield from _refused_values(value, schema_of(field.type), path)
    elif field.kind is Kind.ENUM and value not in field.enum_members:
        yield path, f"{value} is no {field.type.__name__} that this version knows"
    elif field.kind is Kind.DURATION:
        try:
            _timedelta(value)
        except OverflowError:
            yield path, "the duration is out of range"
    elif field.kind is Kind.TIMESTAMP:
        try:
            _datetime(value)
        except OverflowError:
            yield path, "the time is out of range"
