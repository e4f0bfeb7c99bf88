"""Types to protobuf messages.

The quick way knows no field paths. When it fails, a slow walk tries every value on its own, by the
same functions, and collects all that are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.message import Message

from memplan._schema import (
    MAX_DEPTH,
    MAX_EXACT_INT,
    MAX_STRUCT_DEPTH,
    Field,
    Kind,
    Schema,
    WireError,
    brief,
    per_class,
    schema_of,
)

__all__ = ["to_proto"]

_MAX_DURATION_SECONDS = 315_576_000_000
"""Limit of google.protobuf.Duration."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = int((datetime.min.replace(tzinfo=UTC) - _EPOCH).total_seconds())
_LAST_SECOND = int((datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1))
"""Limits of google.protobuf.Timestamp: the years 1 to 9999 of UTC."""

_REFUSED = (TypeError, ValueError, OverflowError, LookupError, AttributeError)
"""What protobuf and the functions below raise for a value that does not fit its field."""

_Filler = Callable[[Any, Any, int], None]
"""Puts a value into one field of a message: (message, value, depth)."""


def to_proto(value: object) -> Message:
    """The message of a dataclass of `memplan.types`. Raises `WireError`."""
    schema = schema_of(type(value))
    message = schema.message()
    try:
        _fill(message, value, schema, 0)
    except _REFUSED as error:
        violations = list(_refused_values(value, schema, "", 0))
        if not violations:  # a defect of the codec: do not hide it
            raise
        raise WireError(violations) from error
    return message


def _fill(message: Message, value: object, schema: Schema, depth: int) -> None:
    if depth > MAX_DEPTH or schema.has_conflict(value):
        raise ValueError
    scalars, fillers = _plan(schema.cls)
    for name in scalars:
        setattr(message, name, getattr(value, name))
    for name, fill in fillers:
        fill(message, getattr(value, name), depth)


@per_class
def _plan(cls: type[Any]) -> tuple[tuple[str, ...], tuple[tuple[str, _Filler], ...]]:
    """The fields that take their value as it is, and how the others are filled."""
    fields = schema_of(cls).fields
    scalars = [f for f in fields if f.is_plain_scalar]
    others = tuple((f.name, _filler(f)) for f in fields if f not in scalars)
    return tuple(f.name for f in scalars), others


def _filler(field: Field) -> _Filler:
    if field.is_map:
        return _map_filler(field)
    if field.repeated:
        return _repeated_filler(field)
    if field.kind is Kind.MESSAGE:
        return _message_filler(field)
    return _value_filler(field)


def _value_filler(field: Field) -> _Filler:
    name, optional = field.name, field.optional

    def fill_scalar(message: Any, value: Any, depth: int) -> None:
        if value is not None or not optional:
            setattr(message, name, value)

    def fill_enum(message: Any, value: Any, depth: int) -> None:
        if value is not None or not optional:
            setattr(message, name, field.enum_numbers[value])

    def fill_duration(message: Any, value: Any, depth: int) -> None:
        if value is not None or not optional:
            getattr(message, name).CopyFrom(_duration(value))

    def fill_timestamp(message: Any, value: Any, depth: int) -> None:
        if value is not None or not optional:
            getattr(message, name).CopyFrom(_timestamp(value))

    def fill_struct(message: Any, value: Any, depth: int) -> None:
        _fill_struct(getattr(message, name), value, 0)

    return {
        Kind.SCALAR: fill_scalar,
        Kind.ENUM: fill_enum,
        Kind.DURATION: fill_duration,
        Kind.TIMESTAMP: fill_timestamp,
        Kind.STRUCT: fill_struct,
    }[field.kind]


def _message_filler(field: Field) -> _Filler:
    name, cls, optional = field.name, field.type, field.optional
    default = field.default()

    def fill(message: Any, value: Any, depth: int) -> None:
        if value is None and optional:
            return
        if not isinstance(value, cls):
            raise TypeError
        if value != default:  # the default instance stands for an absent message
            child = getattr(message, name)
            child.SetInParent()
            _fill(child, value, schema_of(cls), depth + 1)

    return fill


def _repeated_filler(field: Field) -> _Filler:
    name, cls = field.name, field.type

    def fill(message: Any, value: Any, depth: int) -> None:
        if not isinstance(value, tuple | list):
            raise TypeError
        if field.kind is Kind.ENUM:
            getattr(message, name).extend(field.enum_numbers[item] for item in value)
        else:
            getattr(message, name).extend(value)

    def fill_messages(message: Any, value: Any, depth: int) -> None:
        if not isinstance(value, tuple | list):
            raise TypeError
        target, schema = getattr(message, name), schema_of(cls)
        for item in value:
            if not isinstance(item, cls):
                raise TypeError
            _fill(target.add(), item, schema, depth + 1)

    return fill_messages if field.kind is Kind.MESSAGE else fill


def _map_filler(field: Field) -> _Filler:
    assert field.kind is Kind.SCALAR, "the contract has maps of scalars only"

    def fill(message: Any, value: Any, depth: int) -> None:
        if not isinstance(value, Mapping):
            raise TypeError
        getattr(message, field.name).update(value)

    return fill


def _fill_struct(struct: struct_pb2.Struct, mapping: object, depth: int) -> None:
    if not isinstance(mapping, Mapping):
        raise TypeError
    for key, item in mapping.items():
        _fill_plain(struct.fields[key], item, depth + 1)


def _fill_plain(value: struct_pb2.Value, item: object, depth: int) -> None:
    if depth > MAX_STRUCT_DEPTH:
        raise ValueError
    if isinstance(item, Mapping):
        value.struct_value.SetInParent()
        _fill_struct(value.struct_value, item, depth)
    elif isinstance(item, tuple | list):
        value.list_value.SetInParent()
        for element in item:
            _fill_plain(value.list_value.values.add(), element, depth + 1)
    else:
        _fill_leaf(value, item)


def _fill_leaf(value: struct_pb2.Value, item: object) -> None:
    if item is None:
        value.null_value = struct_pb2.NULL_VALUE
    elif isinstance(item, bool):
        value.bool_value = item
    elif isinstance(item, str):
        value.string_value = item
    elif isinstance(item, int) and abs(item) > MAX_EXACT_INT:
        raise ValueError  # a Struct's numbers are doubles
    elif isinstance(item, int | float):
        value.number_value = item
    else:
        raise TypeError


def _duration(value: object) -> duration_pb2.Duration:
    if not isinstance(value, timedelta):
        raise TypeError
    seconds, nanos = value.days * 86_400 + value.seconds, value.microseconds * 1000
    if seconds < 0 and nanos:  # both parts of a Duration have the same sign
        seconds, nanos = seconds + 1, nanos - 1_000_000_000
    if abs(seconds) > _MAX_DURATION_SECONDS:
        raise OverflowError
    return duration_pb2.Duration(seconds=seconds, nanos=nanos)


def _timestamp(value: object) -> timestamp_pb2.Timestamp:
    if not isinstance(value, datetime):
        raise TypeError
    since = value - _EPOCH  # TypeError where it has no time zone
    seconds = since // timedelta(seconds=1)
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise OverflowError
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=since.microseconds * 1000)


_Violation = tuple[str, str]


def _refused_values(value: object, schema: Schema, path: str, depth: int) -> Iterator[_Violation]:
    if depth > MAX_DEPTH:
        yield path, f"is nested more than {MAX_DEPTH} levels deep"
        return
    for field in schema.fields:
        item = getattr(value, field.name)
        where = f"{path}.{field.name}" if path else field.name
        if item is not None or not field.optional:
            yield from _refused_in_field(item, field, schema, where, depth)
    for text in schema.conflicts(value):
        yield path, text


def _refused_in_field(
    item: Any, field: Field, schema: Schema, path: str, depth: int
) -> Iterator[_Violation]:
    if field.kind is Kind.STRUCT:
        yield from _refused_plain(item, path, 0)
    elif field.is_map and isinstance(item, Mapping):
        for key, element in item.items():
            yield from _refused_element({key: element}, field, schema, f"{path}[{key!r}]")
    elif field.repeated and isinstance(item, tuple | list):
        for index, element in enumerate(item):
            where = f"{path}[{index}]"
            if field.kind is Kind.MESSAGE and isinstance(element, field.type):
                yield from _refused_values(element, schema_of(field.type), where, depth + 1)
            else:
                if any(_refused_element([element], field, schema, where)):
                    yield where, f"must be {field.element}, not {brief(element)}"
    elif field.kind is Kind.MESSAGE and isinstance(item, field.type):
        yield from _refused_values(item, schema_of(field.type), path, depth + 1)
    else:
        yield from _refused_element(item, field, schema, path)


def _refused_element(item: Any, field: Field, schema: Schema, path: str) -> Iterator[_Violation]:
    """Try one value on a scratch message."""
    try:
        _filler(field)(schema.message(), item, 0)
    except _REFUSED:
        yield path, f"must be {field.expected}, not {brief(item)}"


def _refused_plain(item: object, path: str, depth: int) -> Iterator[_Violation]:
    if depth > MAX_STRUCT_DEPTH:
        yield path, f"is nested more than {MAX_STRUCT_DEPTH} levels deep"
    elif isinstance(item, Mapping):
        for key, element in item.items():
            yield from _refused_plain(element, f"{path}.{key}", depth + 1)
            if not isinstance(key, str):
                yield path, f"the key {brief(key)} must be text"
    elif depth == 0:
        yield path, f"must be a mapping, not {brief(item)}"
    elif isinstance(item, tuple | list):
        for index, element in enumerate(item):
            yield from _refused_plain(element, f"{path}[{index}]", depth + 1)
    else:
        try:
            _fill_leaf(struct_pb2.Value(), item)
        except _REFUSED:
            yield path, f"must be text, true, false or a number up to 2^53, not {brief(item)}"
