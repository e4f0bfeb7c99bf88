"""How routers of mixture-of-experts are taken to route.

A router picks, for each token, the experts with the highest scores (`topk`, `argmax`). Scores have
no values here, so the picks are what the job states: balanced, so that every expert gets the same
number of tokens, give or take one, or all tokens to the same experts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from memplan.types import Routing

__all__ = ["CHOICES", "route"]

_ATEN = torch.ops.aten
_SENTENCES = {
    Routing.BALANCED: "routers give every expert the same number of tokens (routing: balanced)",
    Routing.WORST_CASE: "routers send all tokens to the same experts (routing: worst-case)",
}
_chosen = Routing.BALANCED

Choice = tuple[Callable[[], Any], frozenset[str]]
"""How to make the values of an operator's results, and what that assumes."""


def route(routing: Routing) -> None:
    """Take routers to route so from now on."""
    global _chosen
    _chosen = Routing.BALANCED if routing is Routing.UNSPECIFIED else routing


def _topk(scores: torch.Tensor, k: int, dim: int = -1, *rest: Any, **options: Any) -> Choice:
    """Results: scores, which stay unknown, and indices."""
    made = functools.partial(_indices, _chosen, tuple(scores.shape), k, dim)
    return lambda: (None, made()), _said()


def _max(scores: torch.Tensor, dim: int, keepdim: bool = False) -> Choice:
    made = functools.partial(_indices, _chosen, tuple(scores.shape), 1, dim)
    return lambda: (None, made() if keepdim else made().squeeze(dim)), _said()


def _argmax(scores: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Choice:
    if dim is None:
        return lambda: None, _said()
    made = functools.partial(_indices, _chosen, tuple(scores.shape), 1, dim)
    return lambda: made() if keepdim else made().squeeze(dim), _said()


def _said() -> frozenset[str]:
    return frozenset([_SENTENCES[_chosen]])


def _indices(routing: Routing, shape: tuple[int, ...], k: int, dim: int) -> torch.Tensor:
    """Indices of the `k` picked of those along `dim`: [..., k, ...], distinct for each token."""
    experts = shape[dim]
    others = [n for i, n in enumerate(shape) if i != dim % len(shape)]
    first = torch.arange(math.prod(others)) * k
    if routing is Routing.WORST_CASE:
        first = torch.zeros_like(first)
    picked = (first[:, None] + torch.arange(k)) % experts
    return picked.reshape(*others, k).movedim(-1, dim)


CHOICES: dict[Any, Callable[..., Choice]] = {
    _ATEN.topk.default: _topk,
    _ATEN.max.dim: _max,
    _ATEN.argmax.default: _argmax,
}
"""Operators that pick, by unknown scores."""
