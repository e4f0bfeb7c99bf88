"""`memplan.types` says what the proto files say, field by field and member by member."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Optional

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from memplan import types
from memplan.v1 import estimate_pb2, gpus_pb2, job_pb2, layers_pb2, planner_pb2

FILES = [m.DESCRIPTOR for m in (job_pb2, layers_pb2, gpus_pb2, estimate_pb2, planner_pb2)]
MESSAGES = {name: d for file in FILES for name, d in file.message_types_by_name.items()}
ENUMS = {name: d for file in FILES for name, d in file.enum_types_by_name.items()}
SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_INT64: int,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_STRING: str,
}
TIMES = {"google.protobuf.Duration": timedelta, "google.protobuf.Timestamp": datetime}
MAY_BE_ABSENT = {
    "memplan.v1.EstimateMemoryResponse.profile",
    "memplan.v1.MeasuredProfile.prediction",
    "memplan.v1.PlanJobResponse.accumulation",
    "memplan.v1.PlanJobResponse.profile",
}
"""Messages of which absence means something."""


def test_every_name_has_its_counterpart() -> None:
    assert sorted(types.__all__) == sorted([*MESSAGES, *ENUMS])


@pytest.mark.parametrize("descriptor", MESSAGES.values(), ids=lambda d: d.name)
def test_messages(descriptor: Descriptor) -> None:
    cls = getattr(types, descriptor.name)
    hints = typing.get_type_hints(cls)
    assert hints == {field.name: annotation(field) for field in descriptor.fields}
    assert cls.__dataclass_params__.frozen
    assert all(f.kw_only for f in dataclasses.fields(cls))
    assert all(nested.GetOptions().map_entry for nested in descriptor.nested_types)


@pytest.mark.parametrize("descriptor", MESSAGES.values(), ids=lambda d: d.name)
def test_defaults_are_those_of_absent_fields(descriptor: Descriptor) -> None:
    value = getattr(types, descriptor.name)()
    for field in descriptor.fields:
        given = getattr(value, field.name)
        if is_map(field) or (is_struct(field) and not field.is_repeated):
            assert given == {}
        elif field.is_repeated:
            assert given == ()
        elif may_be_none(field):
            assert given is None
        else:
            assert given == absent(field)


@pytest.mark.parametrize("descriptor", ENUMS.values(), ids=lambda d: d.name)
def test_enums(descriptor: EnumDescriptor) -> None:
    enum: type[StrEnum] = getattr(types, descriptor.name)
    prefix = "".join(f"_{c}" if c.isupper() else c for c in descriptor.name).upper()[1:] + "_"
    assert [f"{prefix}{m.name}" for m in enum] == [v.name for v in descriptor.values]
    kebab = [m.name if descriptor.name == "Verdict" else kebab_case(m.name) for m in enum]
    assert [m.value for m in enum] == kebab
    assert descriptor.values_by_number[0].name == f"{prefix}UNSPECIFIED"


def kebab_case(name: str) -> str:
    return name.lower().replace("_", "-")


def annotation(field: FieldDescriptor) -> Any:
    """The annotation that a field should have."""
    if is_map(field):
        assert field.message_type is not None
        return Mapping[str, element_type(field.message_type.fields_by_name["value"])]  # type: ignore[misc]
    if field.is_repeated:
        return tuple[element_type(field), ...]  # type: ignore[misc]
    element = element_type(field)
    return Optional[element] if may_be_none(field) else element  # noqa: UP045


def may_be_none(field: FieldDescriptor) -> bool:
    """Optional scalars, members of a oneof, and messages whose absence means something."""
    if field.message_type is None or field.containing_oneof is not None:
        return field.has_presence
    return field.message_type.full_name in TIMES or field.full_name in MAY_BE_ABSENT


def element_type(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return getattr(types, field.enum_type.name)
    if field.message_type is None:
        return SCALARS[field.cpp_type]
    known = {**TIMES, "google.protobuf.Struct": Mapping[str, Any]}
    return known.get(field.message_type.full_name) or getattr(types, field.message_type.name)


def absent(field: FieldDescriptor) -> Any:
    """What stands for a field that is not there and cannot be None."""
    if field.enum_type is not None:
        return getattr(types, field.enum_type.name).UNSPECIFIED
    return element_type(field)() if field.message_type is not None else field.default_value


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def is_struct(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and message.full_name == "google.protobuf.Struct"
