"""Which parts of a program are computed anew in backward: activation checkpointing.

    with regions_noted():
        with region():      # what torch.utils.checkpoint is called with
            ...
    region_of(node)         # 1; 0 where a node is in none

PyTorch's tracer has no word for it, so its nodes are marked while they are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.autograd.graph import saved_tensors_hooks
from torch.fx.proxy import TracerBase

from memplan.errors import CaptureError
from memplan.fakes.hardware import replaced

__all__ = ["region", "region_of", "regions_noted"]

_KEY = "memplan_region"


@dataclass(slots=True)
class _Regions:
    count: int = 0
    current: int = 0


_regions = _Regions()


@contextlib.contextmanager
def regions_noted() -> Iterator[None]:
    """Nodes traced inside know their region."""
    original: Any = TracerBase.create_node
    _regions.count = 0

    def create_node(tracer: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node: fx.Node = original(tracer, *args, **kwargs)
        if _regions.current:
            node.meta[_KEY] = _regions.current
        return node

    with replaced(TracerBase, "create_node", create_node):
        yield


@contextlib.contextmanager
def region() -> Iterator[None]:
    """What is traced inside is one region. One within another belongs to the outer.

    Autograd keeps nothing of it, so that tensors end where the program lets go of them.
    """
    if _regions.current:
        yield
        return
    _regions.count += 1
    _regions.current = _regions.count
    try:
        with saved_tensors_hooks(_let_go, _asked_for):
            yield
    finally:
        _regions.current = 0


def _let_go(tensor: torch.Tensor) -> None:
    """What autograd keeps instead."""


def _asked_for(nothing: None) -> torch.Tensor:
    raise CaptureError("Gradients are computed of a checkpointed part before backward.")


def region_of(node: fx.Node) -> int:
    """The node's region, counted from 1; 0 for none."""
    found = node.meta.get(_KEY, 0)
    return found if isinstance(found, int) else 0
