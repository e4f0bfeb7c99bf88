"""Constructors that read numbers from tensors get them on the meta device too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memplan_server.errors import InvalidJob
from memplan_server.models.construction import construction

READ: list[tuple[Callable[[], Any], Any]] = [
    (lambda: [x.item() for x in torch.linspace(0, 1, 5)], [0.0, 0.25, 0.5, 0.75, 1.0]),
    (lambda: [x.tolist() for x in torch.linspace(0, 1, 3).split([1, 2])], [[0.0], [0.5, 1.0]]),
    (lambda: float(torch.arange(6).float().mean()), 2.5),
    (lambda: int(2 ** torch.ceil(torch.log2(torch.tensor([100.0])))), 128),
    (lambda: torch.tensor(3).item(), 3),
    (lambda: torch.tensor(data=[1, 2]).tolist(), [1, 2]),
    (lambda: torch.diff(torch.tensor([0, 2, 5])).int().tolist(), [2, 3]),
    (lambda: torch.zeros(2).fill_(3).cpu().tolist(), [3.0, 3.0]),
    (lambda: bool(torch.ones(4).sum() > 3), True),
]


@pytest.mark.parametrize(("make", "expected"), READ)
def test_numbers_that_follow_from_numbers_are_read(make: Callable[[], Any], expected: Any) -> None:
    with construction("job.model"):
        assert make() == expected


def test_what_is_made_stays_without_data() -> None:
    with construction("job.model"):
        made = (torch.linspace(0, 1, 5), torch.tensor([1, 2]), torch.ones(3, dtype=torch.int64))
        halved = made[0].to(torch.float16)
    assert all(tensor.is_meta for tensor in (*made, halved))
    assert halved.dtype == torch.float16


@pytest.mark.parametrize("read", [torch.Tensor.item, torch.Tensor.tolist])
def test_what_follows_from_nothing_is_refused(read: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(InvalidJob, match="meta tensor"), construction("job.model"):
        read(torch.randn(()) + torch.empty(()))
