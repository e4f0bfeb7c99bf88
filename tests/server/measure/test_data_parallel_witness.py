"""DistributedDataParallel with real collectives (gloo, on the CPU) against the simulated rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch.distributed as dist
from test_witness import CNN, GPU, MLP, ON_THE_HOST, RESNET, SGD, beside_workspaces, really
from torch.nn.parallel import DistributedDataParallel

from memplan.types import (
    DataParallel,
    DataParallelStrategy,
    Optimizer,
    OptimizerType,
    TrainingJob,
    TrainingLoop,
)
from memplan_server.jobs import normalize
from memplan_server.measure.comparison import compare_events
from memplan_server.measure.simulated import simulate
from memplan_server.training import data_parallel

DDP = DataParallel(strategy=DataParallelStrategy.DDP, bucket_cap_mb=1)
VIEWS = DataParallel(
    strategy=DataParallelStrategy.DDP, bucket_cap_mb=1, gradient_as_bucket_view=True
)
LISTS = {"empty", "empty_like"}
"""Of shapes and buckets, which lie in host memory; and what is compared of them at first."""


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    """Real collectives, with one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


class _Real(data_parallel.Rank):
    """As a training script wraps its model."""

    def _wrapped(self, *, find_unused: bool) -> DistributedDataParallel:
        return DistributedDataParallel(
            self._module,
            bucket_cap_mb=self._options.bucket_cap_mb,
            gradient_as_bucket_view=self._options.gradient_as_bucket_view,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ddp(*args, **kwargs)


@pytest.mark.parametrize("options", [DDP, VIEWS], ids=["copies", "views"])
@pytest.mark.parametrize("steps", [1, 2], ids=["plain", "accumulating"])
@pytest.mark.parametrize(
    ("job", "optimizer"),
    [
        pytest.param(MLP, Optimizer(type=OptimizerType.ADAM), id="mlp-adam"),
        pytest.param(CNN, SGD, id="cnn-sgd"),
        pytest.param(RESNET, SGD, id="resnet18"),
    ],
)
def test_the_same_is_allocated_with_real_collectives(
    job: TrainingJob,
    optimizer: Optimizer,
    steps: int,
    options: DataParallel,
    group: dist.ProcessGroup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = TrainingLoop(accumulation_steps=steps)
    job = replace(job, micro_batch_size=4, optimizer=optimizer, loop=loop, data_parallel=options)
    job = normalize(job)
    with monkeypatch.context() as patched:
        patched.setattr("memplan_server.training.loop.Rank", _Real)
        patched.setattr(data_parallel, "_sync_module_states", lambda *_: None)  # it does its own
        events = really(job).seen.events
    assert events is not None
    found = compare_events(events, simulate(job, GPU).events)
    assert found.matched_allocations > 50
    only_measured = {g.operator: g.block_bytes for g in found.only_measured}
    assert only_measured.keys() <= ON_THE_HOST | LISTS
    assert all(only_measured.get(name, 0) < 8 << 10 for name in LISTS)
    assert beside_workspaces(found) == set()
    assert found.resized == ()
    # gloo's thread may hold a moment longer what was sent at first.
    assert {group.phase for group in found.freed_elsewhere} <= {"setup"}
