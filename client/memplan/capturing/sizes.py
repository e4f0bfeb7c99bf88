"""Sizes that torch.export found, as functions of the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from memplan.types import GraphSize

__all__ = ["BATCH_SIZE", "Sizes", "fitted"]

BATCH_SIZE = 4
"""The batch size that modules are executed with: above 1, since size-1 dimensions are special."""
_TRIED = (2, 4, 6, 8, 10, 12, 14, 26, 64, 100, 1000)
_LARGEST_DIVISOR = 64


class Sizes:
    """Reads sizes of one exported program. Each expression is worked out once."""

    def __init__(self, symbols: Mapping[Any, int]) -> None:
        """`symbols` has how much of each sample's there is in a symbol: s0 is 1 * batch size."""
        self._symbols = symbols
        self._known: dict[Any, int | GraphSize | None] = {}

    def read(self, size: int | torch.SymInt) -> int | GraphSize | None:
        """A number, or what depends on the batch size; None: neither."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        expression = size.node.expr
        if expression not in self._known:
            self._known[expression] = self._read(expression)
        return self._known[expression]

    def _read(self, expression: Any) -> int | GraphSize | None:
        if not expression.free_symbols <= self._symbols.keys():
            return None

        def at(batch_size: int) -> int:
            values = {s: per_sample * batch_size for s, per_sample in self._symbols.items()}
            return int(expression.xreplace(values))

        return fitted(at)


def fitted(at: Callable[[int], int]) -> int | GraphSize | None:
    """The size that a function of the batch size is; None when it is none of those known."""
    values = {batch_size: at(batch_size) for batch_size in _TRIED}
    for size in _candidates(values, at):
        if all(_value(size, b) == value for b, value in values.items()):
            plain = not (size.per_sample or size.per_sample_pair)
            return size.fixed // (size.divisor or 1) if plain else size
    return None


def _candidates(values: Mapping[int, int], at: Callable[[int], int]) -> Iterator[GraphSize]:
    slope, rest = divmod(values[6] - values[4], 2)
    if not rest:
        yield GraphSize(fixed=values[4] - 4 * slope, per_sample=slope)
    pair, rest = divmod(values[8] - 2 * values[6] + values[4], 8)
    if pair and not rest:
        slope = (values[6] - values[4] - 20 * pair) // 2
        fixed = values[4] - 4 * slope - 16 * pair
        yield GraphSize(fixed=fixed, per_sample=slope, per_sample_pair=pair)
    for divisor in range(2, _LARGEST_DIVISOR + 1):
        slope = at(4 + divisor) - values[4]
        for fixed in range(divisor * values[4] - 4 * slope, divisor * (values[4] + 1) - 4 * slope):
            yield GraphSize(fixed=fixed, per_sample=slope, divisor=divisor)


def _value(size: GraphSize, batch_size: int) -> int:
    whole = size.fixed + size.per_sample * batch_size + size.per_sample_pair * batch_size**2
    return whole // (size.divisor or 1)
