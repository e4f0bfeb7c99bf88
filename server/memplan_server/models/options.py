"""Options of a request checked against a constructor's signature.

    allowed = describable(inspect.signature(ResNet))     # {"num_classes": int, "groups": int, ...}
    options = checked(config, allowed, "job.model.catalog.config", "torchvision/resnet50")

Only what is data can be given: numbers, text, booleans, lists and mappings of them. Parameters that
take classes or functions are left out, as nothing a request says may name code. Numbers of layers
have a limit: constructors loop over them.
"""

from __future__ import annotations

import collections.abc
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memplan_server.errors import InvalidJob, Violation

__all__ = ["MOST_LABELS", "MOST_LAYERS", "checked", "data_only", "describable", "limits", "number"]

Annotation = Any
"""A type annotation, as an object."""

MOST_LAYERS = 10_000
"""Largest number of layers, blocks, stages that an option may ask for."""
MOST_LABELS = 2**18
"""Largest `num_labels`: transformers keeps a name for each."""

_LIMITS = (
    (re.compile(r"(^|_)(layers?|depths?|repeats?)$"), MOST_LAYERS),
    (re.compile(r"^num_labels$"), MOST_LABELS),
)
_COUNTS = re.compile(r"(^|_)(layers?|heads|labels)$|^(hidden|vocab|intermediate|embedding)_size$")
"""Options that are at least 1; some constructors make something of less all the same."""
_PLACES = re.compile(
    r"(feature|select|output|skip|dual_attention)_layers?$|^trainable_backbone_layers$"
)
"""Options that say which layers and not how many there are; they may be 0 or count from the end."""
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
        allowed[name] = annotation
    return data_only(allowed)


def data_only(annotations: Mapping[str, Annotation]) -> dict[str, Annotation]:
    """Those whose type, or an alternative of it, is data."""
    return {name: kind for name, kind in annotations.items() if _data(kind)}


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
    violations += limits({name: options[name] for name in options if name in allowed}, field)
    if violations:
        raise InvalidJob(*violations)
    return taken


def limits(options: Mapping[str, Any], field: str) -> Iterator[Violation]:
    """A violation for each number of layers, labels or sizes that no model has."""
    for name, value in options.items():
        if _PLACES.search(name):
            continue
        limit = _limit(name)
        if limit is not None and _largest(value) > limit:
            yield Violation(f"{field}.{name}", f"must be at most {limit:,}.")
        if _COUNTS.search(name) and _smallest(value) < 1:
            yield Violation(f"{field}.{name}", "must be at least 1.")


def number(value: int, annotation: Annotation) -> int | float:
    """The number with a fraction where the annotation takes no whole ones."""
    members = _members(annotation)
    return float(value) if float in members and int not in members else value


def _limit(name: str) -> int | None:
    return next((limit for pattern, limit in _LIMITS if pattern.search(name)), None)


def _smallest(value: Any) -> float:
    """The smallest number in a value; infinite when there is none."""
    if isinstance(value, (list, tuple)):
        return min(map(_smallest, value), default=math.inf)
    return value if isinstance(value, (int, float)) else math.inf


def _largest(value: Any) -> float:
    """The largest number in a value; 0 when there is none."""
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, (int, float)) else 0


def _origin(annotation: Annotation) -> Any:
    """`list` of `list[int]`; None of what has no arguments."""
    return typing.get_origin(annotation)


def _members(annotation: Annotation) -> tuple[Annotation, ...]:
    """The alternatives of a union; the annotation itself where it is none."""
    if _origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _data(annotation: Annotation) -> bool:
    """Whether data can be of this type, in one of its alternatives at least."""
    return any(_data_member(member) for member in _members(annotation) if member is not _NONE)


def _data_member(member: Annotation) -> bool:
    if member in _SCALARS or _origin(member) is typing.Literal:
        return True
    if member in (list, tuple, Any) or _is_mapping(member):
        return True
    if _origin(member) not in _SEQUENCES:
        return False
    return all(_data(item) for item in typing.get_args(member) if item is not Ellipsis)


def _is_mapping(member: Annotation) -> bool:
    kind = _origin(member) or member
    return typing.is_typeddict(kind) or kind in (dict, collections.abc.Mapping)


def _converted(value: Any, annotation: Annotation) -> Any:
    """`value` as this type. Raises ValueError when it is not of it."""
    for member in _members(annotation):
        try:
            return _converted_member(value, member)
        except ValueError:
            continue
    raise ValueError(value)


def _converted_member(value: Any, member: Annotation) -> Any:
    origin = _origin(member)
    if origin is typing.Literal and value in typing.get_args(member):
        return value
    if member is Any or (member is _NONE and value is None):
        return value
    if _is_mapping(member) and isinstance(value, Mapping):
        return dict(value)
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
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise ValueError(value)


def _sequence(value: Any, member: Annotation) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(value)
    made = tuple if tuple in (member, _origin(member)) else list
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
    if member is Any or _is_mapping(member):
        return "anything" if member is Any else "a mapping"
    items: Sequence[Annotation] = typing.get_args(member)
    if _origin(member) is typing.Literal:
        return f"one of {', '.join(map(repr, items))}"
    of = " and ".join(dict.fromkeys(_spoken(item) for item in items if item is not Ellipsis))
    return f"a list of ({of})" if of else "a list"


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
