"""How long a program holds each tensor.

Memory is freed when the last name of a tensor goes: at the next assignment to it, or when the
function returns. While torch.export executes the module, the tensors are real Python objects, so
their ends can be seen.

    with lives_noted():
        program = torch.export.export(...)
    life_of(node)       # Life(born=17, ends=23)

PyTorch has no public way to hear of the tensors that it traces; where the private one is gone, no
life is known, and each value counts as held until it is used for the last time.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.experimental import proxy_tensor

__all__ = ["Life", "life_of", "lives_noted"]

_KEY = "memplan_life"


@dataclass(slots=True)
class Life:
    """Of one tensor, in the order in which tensors are made."""

    born: int
    ends: int | None = None
    """The last tensor made while it lived; None: it outlives the program."""
    watch: Any = None
    """The weak reference that notices its end."""

    def __deepcopy__(self, memo: object) -> Life:
        """One and the same in every copy of a graph."""
        return self


def life_of(node: fx.Node) -> Life | None:
    """The life of the node's result, where it is known."""
    found = node.meta.get(_KEY)
    return found if isinstance(found, Life) else None


@contextlib.contextmanager
def lives_noted() -> Iterator[None]:
    """Note the lives of the tensors that are traced inside."""
    original = getattr(proxy_tensor, "track_tensor", None)
    if original is None:
        yield
        return
    made = 0

    def noting(tensor: torch.Tensor, proxy: fx.Proxy, **kwargs: Any) -> None:
        nonlocal made
        original(tensor, proxy, **kwargs)
        made += 1
        life = Life(born=made)

        def ended(_: object) -> None:
            life.ends = made

        life.watch = weakref.ref(tensor, ended)
        proxy.node.meta[_KEY] = life

    proxy_tensor.track_tensor = noting
    try:
        yield
    finally:
        proxy_tensor.track_tensor = original
