"""One graph for every batch size from graphs of a few.

Where torch.export cannot leave the batch size open, the module is captured at three batch sizes.
The graphs must have the same operators; numbers in which they differ are sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memplan.capturing.writing import Written
from memplan.types import GraphArgument, GraphArgumentList, GraphNode, GraphSize

__all__ = ["BATCH_SIZES", "merged"]

BATCH_SIZES = (4, 6, 10)
"""Two tell how a size grows with the batch; the third, whether it does."""


class _DifferentError(Exception):
    """The graphs do not belong together."""


def merged(written: Sequence[Written]) -> Written | None:
    """The graph of which these are the ones at `BATCH_SIZES`; None where there is none."""
    first = written[0]
    if any(
        (w.operators, w.contexts, w.results, len(w.nodes))
        != (first.operators, first.contexts, first.results, len(first.nodes))
        for w in written
    ):
        return None
    try:
        nodes = [_node(nodes) for nodes in zip(*(w.nodes for w in written), strict=True)]
    except _DifferentError:
        return None
    return replace(first, nodes=nodes)


def _node(nodes: Sequence[GraphNode]) -> GraphNode:
    first = nodes[0]
    if any(replace(n, arguments=()) != replace(first, arguments=()) for n in nodes):
        raise _DifferentError
    return replace(first, arguments=_arguments([n.arguments for n in nodes]))


def _arguments(several: Sequence[tuple[GraphArgument, ...]]) -> tuple[GraphArgument, ...]:
    if len({len(arguments) for arguments in several}) > 1:
        raise _DifferentError
    return tuple(_argument(same) for same in zip(*several, strict=True))


def _argument(same: Sequence[GraphArgument]) -> GraphArgument:
    first = same[0]
    if all(argument == first for argument in same):
        return first
    numbers = [argument.integer for argument in same]
    if all(number is not None for number in numbers):
        return GraphArgument(name=first.name, size=_size(numbers))
    lists = [argument.list for argument in same]
    if all(item is not None for item in lists):
        items = _arguments([item.items for item in lists if item is not None])
        return GraphArgument(name=first.name, list=GraphArgumentList(items=items))
    if all(argument.number is not None for argument in same):
        return first  # a factor such as 1 / batch size: it takes the same memory whatever it is
    raise _DifferentError


def _size(numbers: Sequence[Any]) -> GraphSize:
    (b0, b1, b2), (n0, n1, n2) = BATCH_SIZES, numbers
    slope, rest = divmod(n1 - n0, b1 - b0)
    if not rest and n0 + slope * (b2 - b0) == n2:
        return GraphSize(fixed=n0 - slope * b0, per_sample=slope)
    pair, rest = divmod(n0 * (b2 - b1) - n1 * (b2 - b0) + n2 * (b1 - b0), 48)
    slope = (n1 - n0 - pair * (b1**2 - b0**2)) // (b1 - b0)
    fixed = n0 - slope * b0 - pair * b0**2
    size = GraphSize(fixed=fixed, per_sample=slope, per_sample_pair=pair)
    if rest or [fixed + slope * b + pair * b * b for b in BATCH_SIZES] != list(numbers):
        raise _DifferentError
    return size
