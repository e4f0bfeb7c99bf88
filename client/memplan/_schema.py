"""What the codecs need to know of each message, read once from its descriptor.

    schema = schema_of(TrainingJob)
    schema.by_name["optimizer"].kind        # Kind.MESSAGE

A dataclass of `memplan.types` and the message of the same name in `memplan.v1` belong together,
field by field, by name. Nothing here is written for one message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from functools import cache
from typing import Any, TypeVar, cast

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memplan import types
from memplan.v1 import planner_pb2

__all__ = [
    "MAX_DEPTH",
    "MAX_EXACT_INT",
    "MAX_STRUCT_DEPTH",
    "Field",
    "Kind",
    "Schema",
    "Violations",
    "WireError",
    "brief",
    "only_one_of",
    "per_class",
    "schema_of",
]

T = TypeVar("T")

MAX_DEPTH = 90
"""Messages nested deeper are refused: protobuf parsers give up at 100."""

MAX_STRUCT_DEPTH = 25
"""The same for plain data in a Struct, of which each level is three messages."""

MAX_EXACT_INT = 2**53
"""Numbers in a Struct are doubles: whole ones are exact up to here."""

Violations = list[tuple[str, str]]
"""Field path and description of each place that is wrong."""


class WireError(ValueError):
    """A value that cannot be converted, with every place that is wrong.

    try:
        job = from_dict(TrainingJob, {"optimizer": {"type": "adm"}})
    except WireError as error:
        error.violations    # (("optimizer.type", "there is no 'adm'; did you mean adam? ..."),)
    """

    def __init__(self, violations: Violations) -> None:
        assert violations
        super().__init__(tuple(violations))

    @property
    def violations(self) -> tuple[tuple[str, str], ...]:
        """Field path (`job.model.layer_stack.layers[3].linear`) and description, in order."""
        return cast("tuple[tuple[str, str], ...]", self.args[0])

    def __str__(self) -> str:
        return "; ".join(f"{path}: {text}" if path else text for path, text in self.violations)


class Kind(Enum):
    """How a field's value is represented in Python."""

    SCALAR = auto()
    """int, float, bool or str."""
    ENUM = auto()
    """A member of a StrEnum."""
    MESSAGE = auto()
    """A dataclass of `memplan.types`."""
    STRUCT = auto()
    """A mapping of plain data (google.protobuf.Struct)."""
    DURATION = auto()
    """A timedelta (google.protobuf.Duration)."""
    TIMESTAMP = auto()
    """A datetime with a time zone (google.protobuf.Timestamp)."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field. Of a map it describes the values; the keys are strings."""

    name: str
    number: int
    kind: Kind
    repeated: bool
    is_map: bool
    optional: bool
    """Whether `None` in Python means absent."""
    type: type[Any]
    """int, float, bool, str, an enum, a dataclass, `dict`, `timedelta` or `datetime`."""
    bits: int
    """Width of an integer, 0 for everything else."""
    default: Callable[[], Any]
    enum_numbers: Mapping[Any, int]
    enum_members: Mapping[int, StrEnum]

    @property
    def is_plain_scalar(self) -> bool:
        """Whether it is one scalar that is always there."""
        several = self.repeated or self.is_map
        return self.kind is Kind.SCALAR and not (several or self.optional)

    @property
    def expected(self) -> str:
        """What a value of it must be, in words."""
        if self.repeated:
            return f"a list, each {self.element}"
        return f"a mapping of text to {self.element}" if self.is_map else self.element

    @property
    def element(self) -> str:
        """What one element of it must be, in words."""
        if self.kind is Kind.SCALAR:
            return f"a whole number of {self.bits} bits" if self.bits else _WORDS[self.type]
        if self.kind is Kind.ENUM:
            return f"one of {', '.join(m.value for m in self.enum_numbers if self.enum_numbers[m])}"
        if self.kind is Kind.DURATION:
            return "a timedelta of at most 10,000 years"
        if self.kind is Kind.TIMESTAMP:
            return "a datetime with a time zone"
        if self.kind is not Kind.MESSAGE:
            return "a mapping"
        name = self.type.__name__
        return f"an {name}" if name.startswith(("A", "E", "I", "O")) else f"a {name}"


_WORDS = {float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, slots=True)
class Schema:
    """One message and its dataclass."""

    cls: type[Any]
    message: type[Message]
    fields: tuple[Field, ...]
    by_name: Mapping[str, Field]
    by_number: Mapping[int, Field]
    oneofs: tuple[tuple[str, ...], ...]
    """Names of the members of each oneof."""

    def has_conflict(self, value: object) -> bool:
        """Whether the dataclass `value` sets more than one member of a oneof."""
        return any(sum(getattr(value, n) is not None for n in names) > 1 for names in self.oneofs)

    def conflicts(self, value: object) -> Iterator[str]:
        """A description for each oneof of which the dataclass `value` sets more than one member."""
        for names in self.oneofs:
            given = [name for name in names if getattr(value, name) is not None]
            if len(given) > 1:
                yield only_one_of(given)


def only_one_of(names: list[str]) -> str:
    """What to say when several members of a oneof are given."""
    return f"give only one of {', '.join(names)}"


def brief(value: object) -> str:
    """`repr` of at most 60 characters, for messages."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        return f"that {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def per_class(build: Callable[[type[Any]], T]) -> Callable[[type[Any]], T]:
    """`build`, called once for each class."""
    return cast("Callable[[type[Any]], T]", cache(build))


def _schema_of(cls: type[Any]) -> Schema:
    descriptor = _descriptor(cls)
    defaults = {f.name: _default(f) for f in dataclasses.fields(cls)}
    fields = tuple(_field(f, defaults[f.name]) for f in descriptor.fields)
    oneofs = (o for o in descriptor.oneofs if not o.name.startswith("_"))
    return Schema(
        cls=cls,
        message=GetMessageClass(descriptor),
        fields=fields,
        by_name={f.name: f for f in fields},
        by_number={f.number: f for f in fields},
        oneofs=tuple(tuple(f.name for f in o.fields) for o in oneofs),
    )


schema_of = per_class(_schema_of)
"""The schema of a dataclass of `memplan.types`."""


def _descriptor(cls: type[Any]) -> Descriptor:
    pool = planner_pb2.DESCRIPTOR.pool
    try:
        return pool.FindMessageTypeByName(f"memplan.v1.{cls.__name__}")
    except KeyError:
        raise TypeError(f"{cls.__name__} is not a message of memplan.v1") from None


def _default(spec: dataclasses.Field[Any]) -> Callable[[], Any]:
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory
    return lambda: spec.default


def _field(descriptor: FieldDescriptor, default: Callable[[], Any]) -> Field:
    message = descriptor.message_type
    entry = message if message is not None and message.GetOptions().map_entry else None
    value = descriptor if entry is None else entry.fields_by_name["value"]
    kind, python = _kind(value)
    enum = value.enum_type
    members = _enum_members(enum, python) if enum is not None else {}
    integer = value.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    narrow = value.cpp_type == FieldDescriptor.CPPTYPE_INT32
    return Field(
        name=descriptor.name,
        number=descriptor.number,
        kind=kind,
        repeated=descriptor.is_repeated and entry is None,
        is_map=entry is not None,
        optional=default() is None,
        type=python,
        bits=(32 if narrow else 64) if integer else 0,
        default=default,
        enum_numbers={member: number for number, member in members.items()},
        enum_members=members,
    )


_SCALARS: dict[int, type[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_INT64: int,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_STRING: str,
}


def _kind(descriptor: FieldDescriptor) -> tuple[Kind, type[Any]]:
    if descriptor.enum_type is not None:
        return Kind.ENUM, getattr(types, descriptor.enum_type.name)
    message = descriptor.message_type
    if message is None:
        return Kind.SCALAR, _SCALARS[descriptor.cpp_type]
    if message.full_name == struct_pb2.Struct.DESCRIPTOR.full_name:
        return Kind.STRUCT, dict
    if message.full_name == duration_pb2.Duration.DESCRIPTOR.full_name:
        return Kind.DURATION, timedelta
    if message.full_name == timestamp_pb2.Timestamp.DESCRIPTOR.full_name:
        return Kind.TIMESTAMP, datetime
    return Kind.MESSAGE, getattr(types, message.name)


def _enum_members(descriptor: EnumDescriptor, enum: type[StrEnum]) -> dict[int, StrEnum]:
    prefix = "".join(f"_{c}" if c.isupper() else c for c in descriptor.name).upper()[1:] + "_"
    return {v.number: enum[v.name.removeprefix(prefix)] for v in descriptor.values}
