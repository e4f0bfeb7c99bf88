"""Types to plain data (dicts, lists, text, numbers: JSON and YAML) and back.

    to_dict(job, defaults=False)                    # {"model": {"catalog": {"name": ...}}, ...}
    from_dict(TrainingJob, {"precision": "fp32"})   # TrainingJob(precision=Precision.FP32)

Field names are those of the contract. Enums are their text; a Duration is `1.5s`, a
Timestamp `2026-01-31T08:15:00.5Z`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from memplan._schema import (
    MAX_DEPTH,
    MAX_EXACT_INT,
    MAX_STRUCT_DEPTH,
    Field,
    Kind,
    Violations,
    WireError,
    brief,
    only_one_of,
    schema_of,
)

__all__ = ["Compact", "Expand", "did_you_mean", "from_dict", "nearest", "to_dict"]

T = TypeVar("T")

Expand = Callable[[type[Any], Any], Any]
"""Rewrites data before it is read as the dataclass given, from a shorthand for instance. Raises
ValueError, or WireError with paths relative to that data, where it is wrong."""

Compact = Callable[[type[Any], Any], Any]
"""Rewrites the data of the dataclass given, into a shorthand for instance."""

_DURATION = re.compile(r"(-?)(\d+)(?:\.(\d{1,6}))?s")
_EXAMPLE_TIME = "2026-01-31T08:15:00Z"


def to_dict(value: object, *, defaults: bool = True, compact: Compact | None = None) -> Any:
    """A dataclass of `memplan.types` as plain data: a dict, or what `compact` makes of it.

    What is absent is left out: unset optional fields, unset members of a oneof, UNSPECIFIED. With
    `defaults=False` so is everything that equals its default, which makes a request short.
    """
    data = {}
    for field in schema_of(type(value)).fields:
        item = getattr(value, field.name)
        if item is None or (_is_word(field) and not field.enum_numbers.get(item, 1)):
            continue
        if defaults or field.optional or item != field.default():
            data[field.name] = _field_to_plain(item, field, defaults, compact)
    return data if compact is None else compact(type(value), data)


def _is_word(field: Field) -> bool:
    """Whether it is an enum whose absence is a member: UNSPECIFIED."""
    return field.kind is Kind.ENUM and not (field.optional or field.repeated)


def _field_to_plain(item: Any, field: Field, defaults: bool, compact: Compact | None) -> Any:
    if field.kind is Kind.MESSAGE:
        if field.repeated:
            return [to_dict(element, defaults=defaults, compact=compact) for element in item]
        return to_dict(item, defaults=defaults, compact=compact)
    if field.is_map:
        return dict(item)
    return [_to_plain(e, field) for e in item] if field.repeated else _to_plain(item, field)


def _to_plain(item: Any, field: Field) -> Any:
    if field.kind is Kind.ENUM:
        return item.value
    if field.kind is Kind.DURATION:
        return _duration_text(item)
    if field.kind is Kind.TIMESTAMP:
        return item.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    return _copy_plain(item) if field.kind is Kind.STRUCT else item


def _copy_plain(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _copy_plain(element) for key, element in item.items()}
    return [_copy_plain(element) for element in item] if isinstance(item, tuple | list) else item


def from_dict(cls: type[T], data: object, *, expand: Expand | None = None) -> T:
    """The dataclass that plain data describes. Raises `WireError` with every mistake in it.

    `None` means not given. Enum text is taken in any case, with `-` or `_`.
    """
    reader = _Reader(expand)
    value: T | None = reader.message(cls, data, "", 0)
    if reader.violations:
        raise WireError(reader.violations)
    assert value is not None
    return value


class _MistakeError(Exception):
    """A value that is wrong; args[0] says how."""


class _Reader:
    """Reads values and collects what is wrong with them."""

    def __init__(self, expand: Expand | None) -> None:
        self.violations: Violations = []
        self._expand = expand

    def message(self, cls: type[Any], data: Any, path: str, depth: int) -> Any:
        """The dataclass, or `None` when it cannot be made."""
        data = self._expanded(cls, data, path, depth)
        if data is None:
            return None
        schema = schema_of(cls)
        given = {key: item for key, item in data.items() if item is not None}
        values = {}
        for key, item in given.items():
            field = schema.by_name.get(key) if isinstance(key, str) else None
            where = _join(path, key)
            if field is None:
                self.violations.append((where, _unknown_field(key, schema.by_name)))
                continue
            before = len(self.violations)
            value = self._field(field, item, where, depth)
            if len(self.violations) == before:
                values[field.name] = value
        for names in schema.oneofs:
            members = [name for name in names if name in given]
            if len(members) > 1:
                self.violations.append((path, only_one_of(members)))
        return cls(**values)

    def _expanded(self, cls: type[Any], data: Any, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.violations.append((path, f"is nested more than {MAX_DEPTH} levels deep"))
            return None
        try:
            if self._expand is not None:
                data = self._expand(cls, data)
        except WireError as error:
            self.violations += [(_join(path, where), text) for where, text in error.violations]
            return None
        except ValueError as error:
            self.violations.append((path, str(error)))
            return None
        if isinstance(data, Mapping):
            return data
        keys = ", ".join(schema_of(cls).by_name) or "nothing"
        self.violations.append((path, f"must be a mapping with {keys}, not {brief(data)}"))
        return None

    def _field(self, field: Field, item: Any, path: str, depth: int) -> Any:
        if field.kind is Kind.STRUCT:
            return self._plain(item, path, 0)
        if field.is_map and isinstance(item, Mapping):
            return {
                self._key(k, path): self._element(field, v, path, depth) for k, v in item.items()
            }
        if field.repeated and isinstance(item, tuple | list):
            elements = enumerate(item)
            return tuple(self._element(field, e, f"{path}[{i}]", depth) for i, e in elements)
        if field.repeated or field.is_map:
            self.violations.append((path, f"must be {field.expected}, not {brief(item)}"))
            return None
        return self._element(field, item, path, depth)

    def _element(self, field: Field, item: Any, path: str, depth: int) -> Any:
        if field.kind is Kind.MESSAGE:
            return self.message(field.type, item, path, depth + 1)
        try:
            return _READERS[field.type if field.kind is Kind.SCALAR else field.kind](field, item)
        except _MistakeError as mistake:
            self.violations.append((path, str(mistake)))
            return None

    def _key(self, key: object, path: str) -> str:
        if not isinstance(key, str):
            self.violations.append((path, f"the key {brief(key)} must be text: write it in quotes"))
        return str(key)

    def _plain(self, item: Any, path: str, depth: int) -> Any:
        """Data of a Struct."""
        if depth > MAX_STRUCT_DEPTH:
            self.violations.append((path, f"is nested more than {MAX_STRUCT_DEPTH} levels deep"))
        elif isinstance(item, Mapping):
            return {
                self._key(key, path): self._plain(element, _join(path, key), depth + 1)
                for key, element in item.items()
            }
        elif depth == 0:
            self.violations.append((path, f"must be a mapping, not {brief(item)}"))
        elif isinstance(item, tuple | list):
            return [self._plain(e, f"{path}[{i}]", depth + 1) for i, e in enumerate(item)]
        elif item is not None and not isinstance(item, bool | int | float | str):
            self.violations.append((path, f"must be text, true, false or a number: {brief(item)}"))
        elif isinstance(item, int) and abs(item) > MAX_EXACT_INT:
            self.violations.append((path, f"must be at most 2^53, not {brief(item)}"))
        return item


def _join(path: str, key: object) -> str:
    text = str(key)
    return f"{path}.{text}" if path and text else path or text


def _integer(field: Field, item: Any) -> int:
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    limit = 1 << (field.bits - 1)
    if isinstance(item, bool) or not isinstance(item, int):
        raise _MistakeError(f"must be a whole number, not {brief(item)}")
    if not -limit <= item < limit:
        raise _MistakeError(f"must be {field.element}, not {brief(item)}")
    return item


def _number(field: Field, item: Any) -> float:
    if isinstance(item, bool) or not isinstance(item, int | float):
        raise _MistakeError(f"must be a number, not {brief(item)}")
    try:
        return float(item)
    except OverflowError:
        raise _MistakeError(f"is too large: {brief(item)}") from None


def _truth(field: Field, item: Any) -> bool:
    if not isinstance(item, bool):
        raise _MistakeError(f"must be true or false, not {brief(item)}")
    return item


def _text(field: Field, item: Any) -> str:
    if not isinstance(item, str):
        quotes = ": write it in quotes" if isinstance(item, int | float) else ""
        raise _MistakeError(f"must be text, not {brief(item)}{quotes}")
    if not item.isprintable() and any("\ud800" <= c <= "\udfff" for c in item):
        raise _MistakeError(f"must be text, not {brief(item)}")
    return item


def _enum(field: Field, item: Any) -> StrEnum:
    members = {_canonical(member.value): member for member in field.enum_members.values()}
    member = members.get(_canonical(item)) if isinstance(item, str) else None
    if member is None:
        options = [m.value for number, m in field.enum_members.items() if number]
        raise _MistakeError(
            f"there is no {brief(item)}{did_you_mean(item, options)}; one of {', '.join(options)}"
        )
    return member


def _canonical(text: str) -> str:
    return text.lower().replace("_", "-")


def _duration(field: Field, item: Any) -> timedelta:
    match = _DURATION.fullmatch(item) if isinstance(item, str) else None
    if match is None:
        raise _MistakeError(f"must be seconds such as 60s, not {brief(item)}")
    sign, seconds, fraction = match.groups()
    try:
        value = timedelta(seconds=int(seconds), microseconds=int((fraction or "").ljust(6, "0")))
    except (OverflowError, ValueError):  # ValueError: more digits than Python reads
        raise _MistakeError(f"is too long: {brief(item)}") from None
    return -value if sign else value


def _duration_text(value: timedelta) -> str:
    seconds, microseconds = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    fraction = f".{microseconds:06d}".rstrip("0") if microseconds else ""
    return f"{'-' if value < timedelta(0) else ''}{seconds}{fraction}s"


def _timestamp(field: Field, item: Any) -> datetime:
    try:
        value = datetime.fromisoformat(item)
    except (TypeError, ValueError):
        raise _MistakeError(f"must be a time such as {_EXAMPLE_TIME}, not {brief(item)}") from None
    if value.tzinfo is None:
        raise _MistakeError(f"must have a time zone, as in {_EXAMPLE_TIME}: {brief(item)}")
    return value


_READERS: Mapping[object, Callable[[Field, Any], Any]] = {
    int: _integer,
    float: _number,
    bool: _truth,
    str: _text,
    Kind.ENUM: _enum,
    Kind.DURATION: _duration,
    Kind.TIMESTAMP: _timestamp,
}


def _unknown_field(key: object, known: Iterable[str]) -> str:
    names = list(known)
    hint = did_you_mean(key, names)
    return f"unknown field{hint or '; one of ' + ', '.join(names) if names else ''}"


def nearest(word: object, options: Iterable[str], *, count: int = 3) -> list[str]:
    """The options that look most like `word`, best first; none when nothing does."""
    by_key = {_canonical(option): option for option in options}
    keys = difflib.get_close_matches(_canonical(str(word)), by_key, n=count, cutoff=0.6)
    return [by_key[key] for key in keys]


def did_you_mean(word: object, options: Iterable[str]) -> str:
    """`; did you mean adam?`, or nothing."""
    found = nearest(word, options, count=1)
    return f"; did you mean {found[0]}?" if found else ""
