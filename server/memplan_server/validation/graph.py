"""Rules of a captured graph: its structure. Operators are the model builder's business.

Everything that would make executing it go astray is refused here: a value used before it exists,
an index out of range, more of anything than the contract allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from memplan.types import (
    DataType,
    Graph,
    GraphArgument,
    GraphContext,
    GraphInput,
    GraphModule,
    GraphNode,
    GraphSize,
    GraphTensor,
)
from memplan_server.errors import Violation
from memplan_server.validation.rules import Violations, text, whole

__all__ = ["LIMITS", "graph_violations"]

LIMITS = {
    "operators": 2_000,
    "modules": 50_000,
    "tensors": 50_000,
    "inputs": 64,
    "contexts": 1_000,
    "nodes": 50_000,
    "outputs": 1_000,
    "assumptions": 50,
}
"""Most entries of each list of a graph."""
MOST_ARGUMENTS = 64
MOST_CHECKPOINTS = 1_000
MOST_ITEMS = 4_096
MOST_DIMENSIONS = 16
LARGEST_SIZE = 2**40
LONGEST_NAME = 200
LONGEST_PATH = 1_000
DEEPEST_PATH = 100
LONGEST_ASSUMPTION = 500
_KINDS = ("value", "integer", "number", "truth", "text", "dtype", "size", "list")
_FLOATS = (DataType.FLOAT32, DataType.FLOAT16, DataType.BFLOAT16, DataType.FLOAT64)


def graph_violations(graph: Graph, group_count: int, at: str) -> Violations:
    """Every rule that a graph breaks, up to the first node that does."""
    for name, most in LIMITS.items():
        if len(getattr(graph, name)) > most:
            found = f"has {len(getattr(graph, name)):,} entries; at most {most:,} are allowed."
            yield Violation(f"{at}.{name}", found)
            return
    yield from text(f"{at}.name", graph.name, longest=LONGEST_NAME)
    for index, name in enumerate(graph.operators):
        yield from text(f"{at}.operators[{index}]", name, longest=LONGEST_NAME)
    for index, said in enumerate(graph.assumptions):
        yield from text(f"{at}.assumptions[{index}]", said, longest=LONGEST_ASSUMPTION)
    fixed = f"{at}.fixed_batch_size"
    yield from whole(fixed, graph.fixed_batch_size, 1, 2**24, unset=True)
    yield from _modules(graph.modules, f"{at}.modules")
    yield from _tensors(graph, group_count, f"{at}.tensors")
    yield from _inputs(graph, f"{at}.inputs")
    for index, context in enumerate(graph.contexts):
        yield from _context(context, f"{at}.contexts[{index}]")
    yield from _nodes_and_results(graph, at)


def _modules(modules: Sequence[GraphModule], at: str) -> Violations:
    if not modules:
        yield Violation(at, "must have at least one entry: the model itself.")
    seen: set[str] = set()
    for index, module in enumerate(modules):
        yield from text(f"{at}[{index}].path", module.path, longest=LONGEST_PATH)
        yield from text(f"{at}[{index}].type", module.type, longest=LONGEST_NAME)
        parts = module.path.split(".")
        if (index == 0) != (module.path == ""):
            yield Violation(f"{at}[{index}].path", "must be empty for the first module, only.")
        elif index and (not all(parts) or len(parts) > DEEPEST_PATH):
            yield Violation(f"{at}[{index}].path", "must be names with dots between them.")
        elif module.path in seen:
            yield Violation(f"{at}[{index}].path", "is given twice.")
        seen.add(module.path)


def _tensors(graph: Graph, group_count: int, at: str) -> Violations:
    seen: set[tuple[int, str]] = set()
    for index, tensor in enumerate(graph.tensors):
        here = f"{at}[{index}]"
        yield from _tensor(tensor, here)
        yield from _index(f"{here}.module", tensor.module, len(graph.modules))
        yield from _index(f"{here}.optimizer_group", tensor.optimizer_group, group_count + 1)
        if (tensor.module, tensor.name) in seen:
            yield Violation(f"{here}.name", "is given twice.")
        seen.add((tensor.module, tensor.name))


def _tensor(tensor: GraphTensor, at: str) -> Violations:
    if not tensor.name or "." in tensor.name:
        yield Violation(f"{at}.name", "must be a name without a dot.")
    yield from text(f"{at}.name", tensor.name, longest=LONGEST_NAME)
    for index, name in enumerate(tensor.tied_names):
        yield from text(f"{at}.tied_names[{index}]", name, longest=LONGEST_PATH)
    yield from _sizes(f"{at}.shape", tensor.shape)
    yield from _sizes(f"{at}.strides", tensor.strides)
    if tensor.strides and len(tensor.strides) != len(tensor.shape):
        yield Violation(f"{at}.strides", "must be as many as there are sizes.")
    if len(tensor.shape) <= MOST_DIMENSIONS and math.prod(tensor.shape) > LARGEST_SIZE:
        yield Violation(f"{at}.shape", "is more than 2^40 elements.")


def _sizes(at: str, values: Sequence[int]) -> Violations:
    if len(values) > MOST_DIMENSIONS:
        yield Violation(at, f"has {len(values):,} entries; at most {MOST_DIMENSIONS} make sense.")
        return
    for index, value in enumerate(values):
        yield from whole(f"{at}[{index}]", value, 0, LARGEST_SIZE)


def _inputs(graph: Graph, at: str) -> Violations:
    if not graph.inputs:
        yield Violation(at, "must have at least one entry.")
    for index, tensor in enumerate(graph.inputs):
        yield from _input(tensor, f"{at}[{index}]", graph.fixed_batch_size)


def _input(tensor: GraphInput, at: str, fixed_batch_size: int) -> Violations:
    yield from text(f"{at}.name", tensor.name, longest=LONGEST_NAME)
    if len(tensor.shape) > MOST_DIMENSIONS:
        yield Violation(f"{at}.shape", f"has more than {MOST_DIMENSIONS} sizes.")
        return
    for index, size in enumerate(tensor.shape):
        yield from _size(f"{at}.shape[{index}]", size)
        if size.fixed < 0 or size.per_sample < 0 or size.per_sample_pair < 0:
            yield Violation(f"{at}.shape[{index}]", "must not be below 0 for any batch size.")


def _size(at: str, size: GraphSize) -> Violations:
    for name in ("fixed", "per_sample", "per_sample_pair"):
        yield from whole(f"{at}.{name}", getattr(size, name), -LARGEST_SIZE, LARGEST_SIZE)
    yield from whole(f"{at}.divisor", size.divisor, 1, LARGEST_SIZE, unset=True)


def _context(context: GraphContext, at: str) -> Violations:
    if context.autocast and context.autocast_dtype not in _FLOATS:
        yield Violation(f"{at}.autocast_dtype", "must be a floating-point type.")
    yield from whole(f"{at}.checkpoint", context.checkpoint, 0, MOST_CHECKPOINTS)


def _index(at: str, value: int, count: int) -> Violations:
    if not 0 <= value < count:
        yield Violation(at, f"must be 0 to {count - 1:,}, not {value}." if count else "has none.")


def _nodes_and_results(graph: Graph, at: str) -> Violations:
    """Nodes in order. At the first that is wrong the numbers of values are no longer known."""
    if not graph.nodes:
        yield Violation(f"{at}.nodes", "must have at least one entry.")
    defined = len(graph.tensors) + len(graph.inputs)
    for index, node in enumerate(graph.nodes):
        results = node.result_count or 1
        wrong = list(_node(graph, node, defined, f"{at}.nodes[{index}]"))
        yield from wrong
        if wrong:
            return
        defined += results
    yield from _checkpoints(graph, at)
    if not graph.outputs and graph.loss is None:
        yield Violation(f"{at}.outputs", "must have at least one entry where there is no loss.")
    for index, output in enumerate(graph.outputs):
        yield from _index(f"{at}.outputs[{index}].value", output.value, defined)
        yield from text(f"{at}.outputs[{index}].name", output.name, longest=LONGEST_NAME)
    if graph.loss is not None:
        yield from _index(f"{at}.loss", graph.loss, defined)


def _checkpoints(graph: Graph, at: str) -> Violations:
    """The nodes of one checkpointed part follow one another."""
    parts = [graph.contexts[n.context - 1].checkpoint if n.context else 0 for n in graph.nodes]
    before: set[int] = set()
    for index, (last, part) in enumerate(zip([0, *parts], parts, strict=False)):
        if part and part != last and part in before:
            said = f"is in checkpoint {part} again, after nodes that are not."
            yield Violation(f"{at}.nodes[{index}].context", said)
            return
        before.add(part)


def _node(graph: Graph, node: GraphNode, defined: int, at: str) -> Violations:
    yield from _index(f"{at}.operator", node.operator, len(graph.operators))
    yield from _index(f"{at}.module", node.module, len(graph.modules))
    yield from _index(f"{at}.context", node.context, len(graph.contexts) + 1)
    yield from whole(f"{at}.result_count", node.result_count, 1, MOST_ITEMS, unset=True)
    if len(node.arguments) > MOST_ARGUMENTS:
        yield Violation(f"{at}.arguments", f"has more than {MOST_ARGUMENTS} entries.")
        return
    for index, argument in enumerate(node.arguments):
        yield from _argument(argument, defined, f"{at}.arguments[{index}]", within_list=False)
    for index, value in enumerate(node.releases):
        known = defined + max(node.result_count, 1)
        yield from _index(f"{at}.releases[{index}]", value, known)


def _argument(argument: GraphArgument, defined: int, at: str, *, within_list: bool) -> Violations:
    given = [kind for kind in _KINDS if getattr(argument, kind) is not None]
    if len(given) > 1:
        yield Violation(at, f"Give only one of {', '.join(given)}.")
        return
    yield from text(f"{at}.name", argument.name, longest=LONGEST_NAME)
    if given:
        yield from _ARGUMENTS[given[0]](getattr(argument, given[0]), defined, f"{at}.{given[0]}")
    if argument.list is None:
        return
    if within_list:
        yield Violation(f"{at}.list", "must not be within a list.")
        return
    if len(argument.list.items) > MOST_ITEMS:
        yield Violation(f"{at}.list.items", f"has more than {MOST_ITEMS:,} entries.")
        return
    for index, item in enumerate(argument.list.items):
        yield from _argument(item, defined, f"{at}.list.items[{index}]", within_list=True)


def _value(value: int, defined: int, at: str) -> Violations:
    if not 0 <= value < defined:
        yield Violation(at, f"must be a value defined before: 0 to {defined - 1:,}, not {value}.")


def _nothing(value: Any, defined: int, at: str) -> Violations:
    yield from ()


_ARGUMENTS: dict[str, Callable[[Any, int, str], Violations]] = {
    "value": _value,
    "integer": _nothing,
    "number": _nothing,
    "truth": _nothing,
    "text": lambda value, defined, at: text(at, value, longest=LONGEST_NAME),
    "dtype": _nothing,
    "size": lambda value, defined, at: _size(at, value),
    "list": _nothing,
}
