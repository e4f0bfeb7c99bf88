"""Gradients that meet are added in place where PyTorch does so on a real device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from memplan_server.simulate import device
from memplan_server.simulate.recorder import Recorder
from memplan_server.timeline import Phase

Branch = Callable[[torch.Tensor], torch.Tensor]

SUMS = ("add", "add_")


class Counting(Recorder):
    """Counts the operators that are executed."""

    def __init__(self) -> None:
        super().__init__(device.register())
        self.executed: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.executed["add_"]
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if self.executed["add_"] == before:  # else it stands for this one
            self.executed[func._overloadpacket.__name__] += 1
        return made


def viewed(h: torch.Tensor) -> torch.Tensor:
    return h.view(8, 4)


def summed(h: torch.Tensor) -> torch.Tensor:
    return h.sum(0, keepdim=True)


def doubled(h: torch.Tensor) -> torch.Tensor:
    return h + h


def loss_of(branches: tuple[Branch, ...], where: torch.device) -> torch.Tensor:
    """The loss of branches that use one tensor."""
    used = nn.Parameter(torch.zeros(4, 8, device=where)).exp()
    loss = torch.zeros((), device=where)
    for branch in branches:
        loss = loss + branch(used).tanh().sum()
    return loss


def really_summed(branches: tuple[Branch, ...]) -> list[int]:
    loss = loss_of(branches, torch.device("cpu"))
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
        loss.backward()
    counts = {e.key: e.count for e in profiled.key_averages()}
    return [counts.get(f"aten::{name}", 0) for name in SUMS]


def simulated_sums(branches: tuple[Branch, ...]) -> list[int]:
    with Counting() as recorder:
        loss = loss_of(branches, device.register())
        recorder.enter(Phase.BACKWARD, 0)
        recorder.executed.clear()
        loss.backward()
    return [recorder.executed[name] for name in SUMS]


@pytest.mark.parametrize(
    "branches",
    [
        (torch.tanh, torch.sigmoid),
        (torch.tanh, torch.sigmoid, torch.exp),
        (viewed, torch.tanh),
        (torch.tanh, viewed),
        (summed, torch.tanh),
        (torch.tanh, summed),
        (doubled, torch.tanh),
    ],
)
def test_as_on_a_real_device(branches: tuple[Branch, ...]) -> None:
    real = really_summed(branches)
    assert sum(real) > 0
    assert simulated_sums(branches) == real
