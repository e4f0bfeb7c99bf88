"""A rank of DistributedDataParallel: buckets, when they are made, what they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from jobs import catalog_job
from torch import nn

import memplan
from memplan.types import (
    DataParallel,
    DataParallelStrategy,
    Optimizer,
    OptimizerType,
    Precision,
    TrainingJob,
    TrainingLoop,
)
from memplan_server.jobs import normalize
from memplan_server.simulate import worker
from memplan_server.timeline import Category, Phase, Timeline

DDP = DataParallel(strategy=DataParallelStrategy.DDP)
RESNET = replace(catalog_job("torchvision/resnet18"), optimizer=Optimizer(type=OptimizerType.ADAM))
BERT = catalog_job(
    "transformers/bert",
    {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "vocab_size": 1000,
    },
)
MIB = 1 << 20
LARGEST = 9
"""MiB of the largest gradient of ResNet-18."""


def traced(job: TrainingJob, data_parallel: DataParallel = DDP) -> Timeline:
    job = normalize(replace(job, data_parallel=data_parallel))
    return Timeline.from_bytes(worker.trace(job, (8, 0)))


def peak(timeline: Timeline, batch_size: int = 8) -> int:
    """Most bytes that tensors hold in a training step."""
    sizes, events = timeline.sizes(batch_size), timeline.events
    held = np.cumsum(np.where(events >= 0, sizes[events], -sizes[~events]))
    return int(held[timeline.phase != Phase.SETUP].max())


def buckets(timeline: Timeline) -> list[int]:
    """Sizes of the buckets that are made before the second step, in bytes."""
    at = (timeline.events >= 0) & (timeline.phase == Phase.FORWARD) & (timeline.step == 1)
    made = timeline.events[at]
    sizes = timeline.intercept[made[timeline.category[made] == Category.GRADIENT]]
    return [int(size) for size in sizes if size >= MIB // 4]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.AMP_FP16, Precision.BF16])
@pytest.mark.parametrize("job", [RESNET, BERT], ids=["resnet18", "bert"])
def test_buckets_are_one_more_copy_of_the_gradients(job: TrainingJob, precision: Precision) -> None:
    job = replace(job, precision=precision)
    alone, rank = traced(job, DataParallel()), traced(job)
    assert rank.affine
    assert "data_parallel" in rank.traits
    more = peak(rank) - peak(alone)
    assert more == pytest.approx(alone.gradient_bytes, rel=0.001)


def test_gradients_that_are_views_of_buckets_take_nothing_besides() -> None:
    views = replace(DDP, gradient_as_bucket_view=True)
    job = replace(RESNET, loop=TrainingLoop(zero_grad_set_to_none=False))
    copied, viewed = traced(job), traced(job, views)
    assert peak(copied) - peak(viewed) == pytest.approx(copied.gradient_bytes, rel=0.02)


@pytest.mark.parametrize("mib", [1, 5, 1024])
def test_buckets_have_the_size_that_was_asked_for(mib: int) -> None:
    timeline = traced(RESNET, replace(DDP, bucket_cap_mb=mib))
    sizes = buckets(timeline)
    assert sum(sizes) == pytest.approx(timeline.gradient_bytes, rel=0.02)
    # A bucket ends with the gradient that fills it, and the first one is for 1 MiB.
    assert all(size < (mib + LARGEST) * MIB for size in sizes)
    assert all(size >= mib * MIB for size in sizes[1:-1])


def test_of_accumulated_micro_batches_only_the_last_is_reduced() -> None:
    job = replace(RESNET, loop=TrainingLoop(accumulation_steps=4))
    alone, rank = traced(job, DataParallel()), traced(job)
    assert rank.affine
    assert peak(rank) - peak(alone) == pytest.approx(alone.gradient_bytes, rel=0.02)


def test_frozen_parameters_are_in_no_bucket() -> None:
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 256))
    model[0].requires_grad_(requires_grad=False)
    job = captured(model)
    alone, rank = traced(job, DataParallel()), traced(job)
    assert peak(rank, 1) - peak(alone, 1) == pytest.approx(512 * 256 * 4, rel=0.02)


class Unused(nn.Module):
    """One of its layers gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(256, 256)
        self.unused = nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def test_parameters_without_gradient_have_room_in_buckets_and_get_none() -> None:
    job = captured(Unused())
    alone, rank = traced(job, DataParallel()), traced(job)
    assert any("2 of 4 trained parameters get no gradient" in a for a in rank.assumptions)
    assert peak(rank, 1) - peak(alone, 1) == pytest.approx(2 * 256 * 256 * 4, rel=0.02)


def captured(model: nn.Module) -> TrainingJob:
    width = next(model.parameters()).shape[1]
    return memplan.capture_job(
        model,
        torch.empty(4, width),
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad]),
        loss=memplan.Loss.MEAN,
    )


def test_none_is_the_same_as_not_given() -> None:
    none = DataParallel(strategy=DataParallelStrategy.NONE)
    assert traced(RESNET, none).to_bytes() == traced(RESNET, DataParallel()).to_bytes()
