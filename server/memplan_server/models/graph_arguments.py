"""Arguments of a graph's nodes, checked against the schemas of their operators.

    bound = bind(operator, node.arguments, "job.model.graph.nodes[3].arguments")
    positional, named = bound.resolve(frame)

All that can be known of an argument without executing the operator is checked here: its kind, and
whether there is such a parameter. What remains (shapes, element types) PyTorch says when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from memplan.types import DataType, GraphArgument
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models.graph_operators import kind_of
from memplan_server.models.graph_sizes import size_at

__all__ = ["Bound", "Frame", "bind", "torch_dtype"]


class Frame(Protocol):
    """What is known while a graph runs."""

    values: dict[int, Any]
    batch_size: int
    device: torch.device


Resolver = Callable[[Frame], Any]
"""Gives the argument."""

_WORDS = ("value", "integer", "number", "truth", "text", "dtype", "size", "list")
_WHOLE = ("integer", "size", "truth")
_NUMBERS = (*_WHOLE, "number")
_TAKES: Mapping[str, tuple[str, ...]] = {
    "Tensor": ("value", *_NUMBERS),
    "int": _WHOLE,
    "SymInt": _WHOLE,
    "float": _NUMBERS,
    "bool": ("truth",),
    "number": _NUMBERS,
    "str": ("text",),
    "ScalarType": ("dtype",),
    "MemoryFormat": ("text",),
}
"""The kinds of argument that a parameter takes; what is not here is filled in."""
_IN_WORDS = {
    "Tensor": "a value",
    "int": "a whole number",
    "SymInt": "a whole number",
    "float": "a number",
    "bool": "a truth value",
    "number": "a number",
    "str": "a text",
    "ScalarType": "an element type",
    "MemoryFormat": "a memory format",
}
_MEMORY_FORMATS = {
    "contiguous_format": torch.contiguous_format,
    "preserve_format": torch.preserve_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}


def torch_dtype(dtype: DataType) -> torch.dtype:
    """PyTorch's element type."""
    name = "float32" if dtype is DataType.UNSPECIFIED else dtype.value
    found: torch.dtype = getattr(torch, name)
    return found


@dataclass(frozen=True, slots=True)
class Bound:
    """The arguments of one node."""

    positional: tuple[Resolver, ...]
    named: Mapping[str, Resolver]

    def resolve(self, frame: Frame) -> tuple[list[Any], dict[str, Any]]:
        """What the operator is called with."""
        positional = [resolver(frame) for resolver in self.positional]
        return positional, {name: resolver(frame) for name, resolver in self.named.items()}


def bind(operator: Any, arguments: Sequence[GraphArgument], at: str) -> Bound:
    """Match arguments with the operator's parameters; devices are filled in.

    Raises `InvalidJob`.
    """
    parameters = list(operator._schema.arguments)
    positional: list[Resolver] = []
    named: dict[str, Resolver] = {}
    for index, argument in enumerate(arguments):
        where = f"{at}[{index}]"
        parameter = _parameter(parameters, argument, index, bool(named), where)
        resolver = _resolver(parameter, argument, where)
        if argument.name or parameter.kwarg_only:
            named[parameter.name] = resolver
        else:
            positional.append(resolver)
    _fill(parameters, positional, named, at)
    return Bound(tuple(positional), named)


def _parameter(
    parameters: list[Any], argument: GraphArgument, index: int, after_named: bool, at: str
) -> Any:
    if not argument.name:
        if after_named:
            raise _wrong(at, "comes by position after one by name.")
        if index >= len(parameters):
            raise _wrong(at, f"is one too many: the operator takes {len(parameters)}.")
        return parameters[index]
    for known in parameters[index:] if not after_named else parameters:
        if known.name == argument.name:
            return known
    raise _wrong(at, f"the operator has no such parameter left: {argument.name[:60]!r}.")


def _fill(
    parameters: list[Any],
    positional: list[Resolver],
    named: dict[str, Resolver],
    at: str,
) -> None:
    """Give the parameters that are not given and have no default; devices always."""
    for parameter in parameters[len(positional) :]:
        kind = kind_of(parameter)[0]
        if parameter.name in named:
            continue
        if kind == "Device":
            named[parameter.name] = _device
        elif not parameter.has_default_value():
            raise _wrong(at, f"lack {parameter.name}.")


def _resolver(parameter: Any, argument: GraphArgument, at: str) -> Resolver:
    kind, several, optional = kind_of(parameter)
    given = next((word for word in _WORDS if getattr(argument, word) is not None), "")
    if kind not in _TAKES:
        if given:
            raise _wrong(at, f"{parameter.name} is not for a graph to give.")
        return _device if kind == "Device" else _constant(None)
    if not given and (optional or parameter.has_default_value()):
        return _constant(None) if optional else _constant(parameter.default_value)
    if not several:
        return _one(kind, given, argument, parameter, at)
    if given != "list":
        if kind in ("int", "SymInt") and given in _WHOLE:  # kernel_size=3
            return _one(kind, given, argument, parameter, at)
        raise _wrong(at, f"{parameter.name} must be a list, each {_IN_WORDS[kind]}.")
    return _list(kind, argument, parameter, at)


def _list(kind: str, argument: GraphArgument, parameter: Any, at: str) -> Resolver:
    assert argument.list is not None
    may_be_none = str(parameter.real_type).endswith("List[Optional[Tensor]]")
    resolvers: list[Resolver] = []
    for index, item in enumerate(argument.list.items):
        word = next((word for word in _WORDS if getattr(item, word) is not None), "")
        where = f"{at}.list.items[{index}]"
        if not word and may_be_none:
            resolvers.append(_constant(None))
        elif kind == "Tensor" and word != "value":
            raise _wrong(where, f"each of {parameter.name} must be a value.")
        else:
            resolvers.append(_one(kind, word, item, parameter, where))
    return lambda frame: [resolver(frame) for resolver in resolvers]


def _one(kind: str, given: str, argument: GraphArgument, parameter: Any, at: str) -> Resolver:
    if given not in _TAKES[kind]:
        raise _wrong(at, f"{parameter.name} must be {_IN_WORDS[kind]}.")
    if given == "value":
        assert argument.value is not None
        number = argument.value
        return lambda frame: frame.values.get(number)  # None where it was let go of
    if given == "size":
        size = argument.size
        assert size is not None
        return lambda frame: size_at(size, frame.batch_size)
    if given == "dtype":
        assert argument.dtype is not None
        return _constant(torch_dtype(argument.dtype))
    if kind == "MemoryFormat":
        if argument.text not in _MEMORY_FORMATS:
            raise _wrong(at, f"must be one of {', '.join(_MEMORY_FORMATS)}.")
        return _constant(_MEMORY_FORMATS[argument.text])
    return _constant(getattr(argument, given))


def _device(frame: Frame) -> torch.device:
    return frame.device


def _constant(value: Any) -> Resolver:
    return lambda frame: value


def _wrong(at: str, said: str) -> InvalidJob:
    return InvalidJob(Violation(at, said))
