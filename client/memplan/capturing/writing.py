"""An exported program -> a Graph."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from memplan.capturing.batches import Batch, data_type
from memplan.capturing.holdings import Held
from memplan.capturing.lives import Life, life_of
from memplan.capturing.locating import line_of
from memplan.capturing.recomputing import region_of
from memplan.capturing.sizes import Sizes
from memplan.errors import CaptureError
from memplan.types import (
    GraphArgument,
    GraphArgumentList,
    GraphContext,
    GraphNode,
    GraphSize,
    GraphTensor,
    GraphTensorKind,
)

__all__ = ["UnreadableSizeError", "Written", "write"]

_MEMORY_FORMATS = {
    torch.contiguous_format: "contiguous_format",
    torch.preserve_format: "preserve_format",
    torch.channels_last: "channels_last",
    torch.channels_last_3d: "channels_last_3d",
}
_LEFT_OUT = ("Device", "Layout", "Generator")
_NO_MEMORY = (
    "_assert_tensor_metadata",
    "_assert_async",
    "_assert_scalar",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
    "_print",
)
"""Checks that take no memory and give nothing."""
_READ = "item"
"""Reads a number; without users it was an index, whose value the program has by now. PyTorch before
2.12 leaves that in the program."""
_PREFIX = "module."
_LARGEST_BATCH = 2**24
_MANY = 10
"""Where code does something else above a batch size, that of at least so many is taken for all."""
_TO_THE_END = 2**63 - 1
"""The end of a slice that names none."""


class UnreadableSizeError(Exception):
    """A size is no function of the batch size, or the batch size was not left open."""


@dataclass
class Written:
    """What was read of the program."""

    nodes: list[GraphNode] = field(default_factory=list)
    operators: dict[str, int] = field(default_factory=dict)
    contexts: dict[GraphContext, int] = field(default_factory=dict)
    results: list[int] = field(default_factory=list)
    """Values that the program returns."""
    largest_batch_size: int = 0
    """Above it the code does something else; 0: it does not."""


def write(program: ExportedProgram, batch: Batch, held: Held, *, dynamic: bool) -> Written:
    """The nodes of the program. Tensors that it lifted are added to `held`.

    Raises `CaptureError`, and for a `dynamic` program `UnreadableSizeError`.
    """
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    signature = program.graph_signature.input_specs
    _hold_constants(placeholders, signature, held)
    first_input = len(held.tensors)
    bindings: dict[fx.Node, Any] = {}
    symbols: dict[Any, int] = {}
    inputs = 0
    for node, spec in zip(placeholders, signature, strict=True):
        if spec.kind is InputKind.USER_INPUT:
            bindings[node] = _Value(first_input + inputs)
            _note_symbols(node.meta["val"], batch.tensors[inputs].shape, symbols, dynamic)
            inputs += 1
        else:
            bindings[node] = _Value(held.by_name[_stripped(spec.target)])
    writer = _Writer(held, Sizes(symbols), first_input + inputs)
    written = writer.written
    written.largest_batch_size = _largest_batch_size(program, symbols)
    outputs = writer.run(program.graph_module, bindings, GraphContext())
    if not all(isinstance(value, _Value) for value in outputs):
        raise CaptureError("The module returns a tensor that PyTorch did not compute.")
    written.results = [value.number for value in outputs]
    writer.release()
    return written


@dataclass(frozen=True)
class _Value:
    """A value of the graph, by its number."""

    number: int


def _stripped(name: str | None) -> str:
    return (name or "").removeprefix(_PREFIX)


def _hold_constants(placeholders: Sequence[fx.Node], signature: Any, held: Held) -> None:
    """Tensors that are not among the module's own: made from numbers in its code."""
    for node, spec in zip(placeholders, signature, strict=True):
        name = _stripped(spec.target)
        if spec.kind is InputKind.USER_INPUT or name in held.by_name:
            continue
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise CaptureError(f"{name} is a {type(value).__name__}, which no graph can hold.")
        held.by_name[name] = len(held.tensors)
        held.tensors.append(
            GraphTensor(
                kind=GraphTensorKind.CONSTANT,
                name=f"constant_{len(held.tensors)}",
                shape=tuple(int(size) for size in value.shape),
                dtype=data_type(value.dtype, name),
            )
        )


def _note_symbols(
    value: torch.Tensor,
    shape: Sequence[tuple[int, int]],
    symbols: dict[Any, int],
    dynamic: bool,
) -> None:
    for size, (_, per_sample) in zip(value.shape, shape, strict=True):
        expression = size.node.expr if isinstance(size, torch.SymInt) else None
        if dynamic and per_sample and (expression is None or not expression.free_symbols):
            raise UnreadableSizeError
        if expression is not None and expression.is_symbol:
            symbols.setdefault(expression, per_sample)


def _largest_batch_size(program: ExportedProgram, symbols: Mapping[Any, int]) -> int:
    """The largest that the program holds for, 0 for all: code may ask how large a batch is.

    Raises `UnreadableSizeError` for one that holds for few batch sizes.
    """
    largest = _LARGEST_BATCH
    for symbol, allowed in program.range_constraints.items():
        per_sample = symbols.get(symbol, 1)
        if allowed.lower > 2 * per_sample or allowed.upper < _MANY * per_sample:
            raise UnreadableSizeError
        if allowed.upper < largest * per_sample:
            largest = int(allowed.upper) // per_sample
    return 0 if largest == _LARGEST_BATCH else largest


class _Writer:
    def __init__(self, held: Held, sizes: Sizes, first: int) -> None:
        self.written = Written()
        self._held = held
        self._sizes = sizes
        self._next = first
        self._born: list[int] = []
        self._lives: dict[int, Life] = {}

    def release(self) -> None:
        """Write down where values are let go of, where that is not after their last use."""
        nodes = self.written.nodes
        last = {v: i for i, node in enumerate(nodes) for v in node.used_values()}
        ends: dict[int, list[int]] = {}
        for value, life in self._lives.items():
            end = len(nodes) if life.ends is None else bisect.bisect_right(self._born, life.ends)
            if value in last and end - 1 > last[value] and value not in self.written.results:
                ends.setdefault(end - 1, []).append(value)
        for index, values in ends.items():
            nodes[index] = replace(nodes[index], releases=tuple(values))

    def run(
        self, module: fx.GraphModule, bindings: dict[fx.Node, Any], context: GraphContext
    ) -> Sequence[Any]:
        """Write the nodes of a graph; returns what it returns."""
        for node in module.graph.nodes:
            if node.op == "call_function":
                bindings[node] = self._call(node, bindings, context, module)
            elif node.op == "get_attr":
                bindings[node] = self._attribute(module, str(node.target))
            elif node.op == "output":
                returned = fx.map_arg(node.args[0], bindings.__getitem__)
                return returned if isinstance(returned, (tuple, list)) else (returned,)
        raise AssertionError("a graph has an output")

    def _attribute(self, module: fx.GraphModule, name: str) -> Any:
        value = module.get_submodule(name) if hasattr(module, name) else None
        if isinstance(value, fx.GraphModule):
            return value
        found = getattr(module, name, None)
        if isinstance(found, torch.Tensor):
            return _Value(self._held.by_name[_stripped(name)])
        raise CaptureError(f"{name} is nothing that a graph can hold.")

    def _call(
        self,
        node: fx.Node,
        bindings: Mapping[fx.Node, Any],
        context: GraphContext,
        module: fx.GraphModule,
    ) -> Any:
        target: Any = node.target
        if target is operator.getitem:
            outer, index = node.args
            found = bindings[outer][index]  # type: ignore[index]
            self._note_life(node, found)
            return found
        value = node.meta.get("val")
        if isinstance(value, (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)):
            return value
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._region(node, bindings, context)
        if not isinstance(target, torch._ops.OpOverload):
            raise self._refused(node, f"{target} is no operator of PyTorch")
        if target.namespace != "aten":
            raise self._refused(node, f"{target} is no operator of PyTorch's own")
        if target._opname in _NO_MEMORY or (target._opname == _READ and not node.users):
            return None
        if _is_whole(node):
            found = bindings[node.args[0]]  # type: ignore[index]
            self._note_life(node, found)
            return found
        return self._operator(node, target, bindings, context)

    def _region(self, node: fx.Node, bindings: Mapping[fx.Node, Any], context: GraphContext) -> Any:
        """The nodes within torch.no_grad() or torch.autocast(), in their place."""
        name = str(node.target)
        args = [bindings[a] if isinstance(a, fx.Node) else a for a in node.args]
        if name == "wrap_with_set_grad_enabled":
            enabled, inner, *rest = args
            within = GraphContext(
                no_grad=not enabled,
                autocast=context.autocast,
                autocast_dtype=context.autocast_dtype,
            )
        elif name == "wrap_with_autocast":
            _, dtype, enabled, _, inner, *rest = args
            known = {} if dtype is None or not enabled else {"autocast_dtype": _dtype(dtype)}  # type: ignore[arg-type]
            within = GraphContext(no_grad=context.no_grad, autocast=bool(enabled), **known)
        else:
            raise self._refused(node, f"{name} has code of its own, which is not captured")
        assert isinstance(inner, fx.GraphModule)
        placeholders = [n for n in inner.graph.nodes if n.op == "placeholder"]
        return self.run(inner, dict(zip(placeholders, rest, strict=True)), within)

    def _operator(
        self,
        node: fx.Node,
        target: Any,
        bindings: Mapping[fx.Node, Any],
        context: GraphContext,
    ) -> Any:
        written = self.written
        number = written.operators.setdefault(str(target), len(written.operators))
        where = 0
        context = replace(context, checkpoint=region_of(node))
        if context != GraphContext():
            where = written.contexts.setdefault(context, len(written.contexts)) + 1
        value = node.meta.get("val")
        count = len(value) if isinstance(value, (tuple, list)) else 0
        written.nodes.append(
            GraphNode(
                operator=number,
                module=self._module(node),
                context=where,
                arguments=self._arguments(node, target, bindings),
                result_count=count,
            )
        )
        life = life_of(node)
        born = self._born[-1] if self._born else 0
        self._born.append(max(born, born if life is None else life.born))
        first, self._next = self._next, self._next + max(count, 1)
        found = [_Value(first + i) for i in range(count)] if count else _Value(first)
        self._note_life(node, found)
        return found

    def _note_life(self, node: fx.Node, value: Any) -> None:
        life = life_of(node)
        if life is None or not isinstance(value, _Value):
            return
        known = self._lives.get(value.number)
        if known is None or (known.ends is not None and (life.ends or known.ends) >= known.ends):
            self._lives[value.number] = life

    def _module(self, node: fx.Node) -> int:
        stack = node.meta.get("nn_module_stack") or {}
        for path, _ in reversed(list(stack.values())):
            known = self._held.module_index.get(_stripped(path.partition("@")[0]))
            if known is not None:
                return known
        return 0

    def _arguments(
        self, node: fx.Node, target: Any, bindings: Mapping[fx.Node, Any]
    ) -> tuple[GraphArgument, ...]:
        parameters = target._schema.arguments
        found = [
            self._argument(node, value, parameter, "", bindings)
            for value, parameter in zip(node.args, parameters, strict=False)
        ]
        by_name = {parameter.name: parameter for parameter in parameters}
        for name, value in node.kwargs.items():
            if value is None or _kind(by_name[name]) in _LEFT_OUT or name == "pin_memory":
                continue
            found.append(self._argument(node, value, by_name[name], name, bindings))
        return tuple(found)

    def _argument(
        self,
        node: fx.Node,
        value: Any,
        parameter: Any,
        name: str,
        bindings: Mapping[fx.Node, Any],
    ) -> GraphArgument:
        if _kind(parameter) in _LEFT_OUT:
            return GraphArgument(name=name)
        if isinstance(value, (list, tuple)):
            items = tuple(self._one(node, item, parameter, bindings) for item in value)
            return GraphArgument(
                name=name,
                list=GraphArgumentList(items=tuple(GraphArgument(**item) for item in items)),
            )
        return GraphArgument(name=name, **self._one(node, value, parameter, bindings))

    def _one(
        self, node: fx.Node, value: Any, parameter: Any, bindings: Mapping[fx.Node, Any]
    ) -> dict[str, Any]:
        """The kind of an argument and its value."""
        if isinstance(value, fx.Node):
            value = bindings[value]
        if value is None:
            return {}
        if isinstance(value, _Value):
            return {"value": value.number}
        if isinstance(value, (bool, torch.SymBool)):
            return {"truth": bool(value)}
        if isinstance(value, (int, torch.SymInt)):
            return self._whole(value)
        if isinstance(value, (float, torch.SymFloat)):
            return {"number": _number(value)}
        if isinstance(value, str):
            return {"text": value}
        if isinstance(value, torch.dtype):
            return {"dtype": _dtype(value)}
        if isinstance(value, torch.memory_format):
            return {"text": _MEMORY_FORMATS[value]}
        raise self._refused(node, f"a {type(value).__name__} is passed to {node.target}")

    def _whole(self, value: Any) -> dict[str, Any]:
        size = self._sizes.read(value)
        if isinstance(size, GraphSize):
            return {"size": size}
        if size is None:
            raise UnreadableSizeError
        return {"integer": size}

    def _refused(self, node: fx.Node, why: str) -> CaptureError:
        return CaptureError(f"The module cannot be captured: {why}.", location=line_of(node))


def _kind(parameter: Any) -> str:
    return str(parameter.real_type).removeprefix("Optional[").removesuffix("]")


def _dtype(dtype: torch.dtype) -> Any:
    return data_type(dtype, "An element type in the module")


def _is_whole(node: fx.Node) -> bool:
    """Whether it is a slice of everything, `x[:]`: unless traced, Python's indexing makes none."""
    if node.target is not torch.ops.aten.slice.Tensor or node.kwargs:
        return False
    given: list[Any] = list(node.args)
    start, end, step = [*given, *(None, 0, None, None, 1)[len(given) :]][2:]
    return start in (0, None) and end in (None, _TO_THE_END) and step == 1


def _number(value: Any) -> float:
    """A number; one that depends on the batch size takes the same memory whatever it is."""
    try:
        return float(value)
    except Exception:  # what a symbolic number raises
        return 1.0
