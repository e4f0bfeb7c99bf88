"""Activation checkpointing in code of one's own is captured as what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)
from tracing import peaks, traced

import memplan
from memplan.capturing.pretending import SELECTIVE
from memplan.types import Model, TrainingJob

WIDTH, LAYERS = 64, 8
Call = Callable[[nn.Module, Tensor], Tensor]


class Blocks(nn.Module):
    """Layers that `call` executes one by one."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
            for _ in range(LAYERS)
        )
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + self.call(block, x)
        return x.sum()


def plain(block: nn.Module, x: Tensor) -> Tensor:
    made: Tensor = block(x)
    return made


def checkpointed(block: nn.Module, x: Tensor, **options: Any) -> Tensor:
    made: Tensor = checkpoint(block, x, **{"use_reentrant": False, **options})
    return made


def job(module: nn.Module) -> TrainingJob:
    graph = memplan.capture(module, torch.empty(16, WIDTH))
    return TrainingJob(model=Model(graph=graph), micro_batch_size=16)


def growth(module: nn.Module) -> float:
    """Bytes that each sample more takes."""
    timeline = traced(job(module))
    return (peaks(timeline, 3000) - peaks(timeline, 1000)) / 2000


WAYS: dict[str, Call] = {
    "checkpoint": checkpointed,
    "reentrant": lambda block, x: checkpointed(block, x, use_reentrant=True),
    "one in another": lambda block, x: checkpointed(
        lambda given: checkpointed(block, given),  # type: ignore[arg-type]
        x,
    ),
    "with an argument by name": lambda block, x: checkpointed(
        lambda given, scale: block(given) * scale,  # type: ignore[arg-type]
        x,
        scale=2.0,
    ),
    "without gradients in it": lambda block, x: checkpointed(
        lambda given: block(given) * _frozen(given),  # type: ignore[arg-type]
        x,
    ),
}


def _frozen(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.softmax(-1)


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_keeps_its_input_and_one_layer_is_computed_anew(way: str) -> None:
    one_layer = 4 * (5 * WIDTH + 4 * WIDTH)  # its inputs and those of the activation
    kept, anew = growth(Blocks(plain)), growth(Blocks(WAYS[way]))
    assert kept > LAYERS * one_layer
    assert LAYERS * 4 * WIDTH <= anew < LAYERS * 4 * WIDTH * 2 + 2 * one_layer < kept


def test_the_whole_model_can_be_one_part() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Blocks(plain)

        def forward(self, x: Tensor) -> Tensor:
            return checkpointed(self.inner, x)

    graph = job(Whole()).model.graph
    assert graph is not None
    assert {context.checkpoint for context in graph.contexts} == {1}
    assert growth(Whole()) == pytest.approx(growth(Blocks(plain)), rel=0.2)


def test_sequential_checkpointing_is_seen() -> None:
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(16)))

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = checkpoint_sequential(self.layers, 4, x, use_reentrant=False)
            return made.sum()

    graph = job(Segments()).model.graph
    assert graph is not None
    assert {context.checkpoint for context in graph.contexts} == {1, 2, 3}  # not of the last


def test_what_selects_is_stated() -> None:
    def contexts() -> Any:
        return create_selective_checkpoint_contexts([torch.ops.aten.mm.default])

    selecting = Blocks(lambda block, x: checkpointed(block, x, context_fn=contexts))
    graph = job(selecting).model.graph
    assert graph is not None
    assert SELECTIVE in graph.assumptions
    graph = job(Blocks(checkpointed)).model.graph
    assert graph is not None
    assert SELECTIVE not in graph.assumptions
