"""Masks as indices: every element is selected, and that is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from jobs import mnist
from torch import nn

from memplan.types import DataType, InputTensor
from memplan_server.models import BuiltModel
from memplan_server.simulate import trace as tracing
from memplan_server.timeline import Timeline


class Masked(nn.Module):
    def __init__(self, select: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)
        self.select = select

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.select(self.linear(x.flatten(1)))


def traced(select: Callable[[torch.Tensor], torch.Tensor]) -> Timeline:
    with torch.device("meta"):
        module = Masked(select)
    image = InputTensor(shape=(1, 28, 28), dtype=DataType.FLOAT32)
    timeline = tracing.trace_affine(mnist(), BuiltModel(module=module, inputs=(image,)), (8, 0))
    assert timeline is not None
    return timeline


def rows_of_a_mask(y: torch.Tensor) -> torch.Tensor:
    return y[y.sum(1) > 0]


def assigned_under_a_mask(y: torch.Tensor) -> torch.Tensor:
    kept = y.clone()
    kept[y > 0] = y[y > 0]
    return kept


def rows_of_nonzero(y: torch.Tensor) -> torch.Tensor:
    return y[(y.sum(1) > 0).nonzero().squeeze(1)]


def through_masked_select(y: torch.Tensor) -> torch.Tensor:
    return y.masked_select(y > 0).view(-1, 10)


@pytest.mark.parametrize(
    "select", [rows_of_a_mask, assigned_under_a_mask, rows_of_nonzero, through_masked_select]
)
def test_everything_is_selected(select: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert "boolean masks used as indices select every element" in traced(select).assumptions


def test_indices_of_integers_are_no_assumption() -> None:
    assert traced(lambda y: y[torch.arange(y.shape[0], device=y.device)]).assumptions == ()


def test_a_mask_costs_its_indices() -> None:
    with_mask, without = traced(rows_of_a_mask), traced(lambda y: y.clone())
    assert len(with_mask.events) > len(without.events)
