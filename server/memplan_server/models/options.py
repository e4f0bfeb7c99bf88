"""Options of a request checked against a constructor's signature.

    allowed = describable(inspect.signature(ResNet))     # {"num_classes": int, "groups": int, ...}
    options = checked(config, allowed, "job.model.catalog.config", "torchvision/resnet50")

Only what is data can be given: numbers, text, booleans and lists of them. Parameters that take
classes or functions are left out, as nothing a request says may name code.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from memplan_server.errors import InvalidJob, Violation

__all__ = ["checked", "describable"]

Annotation = Any
"""A type annotation, as an object."""

_SCALARS = (bool, int, float, str)
_NONE = type(None)
_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)


def describable(signature: inspect.Signature) -> dict[str, Annotation]:
    """Parameters with a default that data can describe, and what they take.

    A parameter without annotation takes what its default is.
    """
    allowed: dict[str, Annotation] = {}
    for name, parameter in signature.parameters.items():
        given, default = parameter.annotation, parameter.default
        if default is inspect.Parameter.empty:
            continue
        annotation = type(default) if given is inspect.Parameter.empty else given
        if annotation is not _NONE and _data(annotation):
            allowed[name] = annotation
    return allowed


def checked(
    options: Mapping[str, Any], allowed: Mapping[str, Annotation], field: str, model: str
) -> dict[str, Any]:
    """The options, as the constructor takes them (lists become tuples where it wants tuples).

    Raises `InvalidJob` with a violation for each option that does not exist or has a wrong type.
    """
    violations = []
    taken = {}
    for name, value in options.items():
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            said = f"{model} has no such option; it has: {known}."
            violations.append(Violation(f"{field}.{name}", said))
            continue
        try:
            taken[name] = _converted(value, allowed[name])
        except ValueError:
            said = f"{model} takes {_spoken(allowed[name])}, not {_brief(value)}."
            violations.append(Violation(f"{field}.{name}", said))
    if violations:
        raise InvalidJob(*violations)
    return taken


def _members(annotation: Annotation) -> tuple[Annotation, ...]:
    """The alternatives of a union; the annotation itself where it is none."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _data(annotation: Annotation) -> bool:
    """Whether data can be of this type, in one of its alternatives at least."""
    return any(_data_member(member) for member in _members(annotation) if member is not _NONE)


def _data_member(member: Annotation) -> bool:
    if member in _SCALARS or typing.get_origin(member) is typing.Literal:
        return True
    if member in (list, tuple):
        return True
    if typing.get_origin(member) not in _SEQUENCES:
        return False
    return all(_data(item) for item in typing.get_args(member) if item is not Ellipsis)


def _converted(value: Any, annotation: Annotation) -> Any:
    """`value` as this type. Raises ValueError when it is not of it."""
    for member in _members(annotation):
        try:
            return _converted_member(value, member)
        except ValueError:
            continue
    raise ValueError(value)


def _converted_member(value: Any, member: Annotation) -> Any:
    origin = typing.get_origin(member)
    if origin is typing.Literal and value in typing.get_args(member):
        return value
    if member is _NONE and value is None:
        return None
    if member in _SCALARS:
        return _scalar(value, member)
    if member in (list, tuple) or origin in _SEQUENCES:
        return _sequence(value, member)
    raise ValueError(value)


def _scalar(value: Any, kind: type) -> Any:
    whole = isinstance(value, float) and value.is_integer()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int and number and (whole or isinstance(value, int)):
        return int(value)
    if kind is float and number:
        return value
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise ValueError(value)


def _sequence(value: Any, member: Annotation) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(value)
    made = tuple if tuple in (member, typing.get_origin(member)) else list
    items = typing.get_args(member)
    if not items:
        return made(value)
    if made is list or Ellipsis in items:
        return made(_converted(item, items[0]) for item in value)
    if len(items) != len(value):
        raise ValueError(value)
    return tuple(_converted(item, kind) for item, kind in zip(value, items, strict=True))


_SPOKEN = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _spoken(annotation: Annotation) -> str:
    """The type in words: `a whole number`, `a list of a whole number`."""
    said = [_spoken_member(m) for m in _members(annotation) if m is _NONE or _data_member(m)]
    return " or ".join(dict.fromkeys(said))


def _spoken_member(member: Annotation) -> str:
    if member is _NONE:
        return "null"
    if member in _SPOKEN:
        return _SPOKEN[member]
    items: Sequence[Annotation] = typing.get_args(member)
    if typing.get_origin(member) is typing.Literal:
        return f"one of {', '.join(map(repr, items))}"
    of = " and ".join(dict.fromkeys(_spoken(item) for item in items if item is not Ellipsis))
    return f"a list of ({of})" if of else "a list"


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
