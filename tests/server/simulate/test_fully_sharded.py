"""A rank of FSDP: pieces, what is gathered of them, and on which streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from jobs import catalog_job
from torch import nn

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
from memplan_server.models import build
from memplan_server.simulate import trace, worker
from memplan_server.timeline import Category, Phase, Timeline
from memplan_server.training.fully_sharded import blocks

LAYERS, WIDTH = 4, 256


def llama(layers: int = LAYERS) -> TrainingJob:
    config = {
        "num_hidden_layers": layers,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 1024,
    }
    adamw = Optimizer(type=OptimizerType.ADAMW)
    return catalog_job("transformers/llama", config, optimizer=adamw)


LLAMA = llama()
BLOCK_BYTES = 4 * (4 * WIDTH * WIDTH + 3 * 4 * WIDTH * WIDTH + 2 * WIDTH)
"""A decoder layer in float32: four projections of attention, three of the MLP, two norms."""


def sharded(job: TrainingJob, count: int, **options: bool) -> TrainingJob:
    data_parallel = DataParallel(strategy=DataParallelStrategy.FSDP, shard_count=count, **options)
    return normalize(replace(job, data_parallel=data_parallel))


def traced(job: TrainingJob) -> Timeline:
    return Timeline.from_bytes(worker.trace(normalize(job), (8, 0)))


def held(timeline: Timeline, batch_size: int = 2) -> np.ndarray:  # type: ignore[type-arg]
    """[n] bytes that tensors hold after each event."""
    sizes, events = timeline.sizes(batch_size), timeline.events
    return np.cumsum(np.where(events >= 0, sizes[events], -sizes[~events]))


def kept(timeline: Timeline, category: Category) -> int:
    """Bytes of a kind that are there after the second step."""
    sizes, events = timeline.sizes(2), timeline.events[timeline.step <= 1]
    change = np.where(events >= 0, sizes[events], -sizes[~events])
    storages = np.where(events >= 0, events, ~events)
    return int(change[timeline.category[storages] == category].sum())


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.AMP_BF16, Precision.BF16])
def test_a_rank_keeps_its_share(precision: Precision, count: int) -> None:
    job = replace(LLAMA, precision=precision)
    alone, rank = traced(job), traced(sharded(job, count))
    assert rank.affine
    assert rank.parameter_count == alone.parameter_count
    for category in (Category.PARAMETER, Category.GRADIENT, Category.OPTIMIZER_STATE):
        assert kept(rank, category) == pytest.approx(kept(alone, category) / count, rel=0.01)
    assert rank.parameter_bytes == pytest.approx(alone.parameter_bytes / count, rel=0.01)
    assert rank.optimizer_state_bytes == pytest.approx(
        alone.optimizer_state_bytes / count, rel=0.01
    )


def gathered(timeline: Timeline) -> int:
    """Most bytes of gathered parameters at a time."""
    parameters = np.flatnonzero(timeline.category == Category.PARAMETER)
    sizes = np.zeros_like(timeline.intercept)
    sizes[parameters] = timeline.intercept[parameters]
    change = np.where(timeline.events >= 0, sizes[timeline.events], -sizes[~timeline.events])
    return int(np.cumsum(change).max()) - timeline.parameter_bytes


@pytest.mark.parametrize("layers", [LAYERS, 2 * LAYERS])
def test_blocks_are_gathered_one_by_one(layers: int) -> None:
    model = 2 * 1024 * WIDTH * 4 + WIDTH * 4  # embedding, head, the last norm
    most = gathered(traced(sharded(llama(layers), 8)))
    assert most == pytest.approx(model + BLOCK_BYTES, rel=0.01)
    kept = gathered(traced(sharded(llama(layers), 8, reshard_after_forward=False)))
    assert kept == pytest.approx(model + layers * BLOCK_BYTES, rel=0.01)


def test_many_ranks_take_no_longer() -> None:
    few, many = traced(sharded(LLAMA, 8)), traced(sharded(LLAMA, 1 << 16))
    assert len(few.events) == len(many.events)
    assert many.parameter_bytes < few.parameter_bytes


def test_no_rank_has_the_whole_model_at_first() -> None:
    timeline = traced(sharded(LLAMA, 8))
    assert held(timeline)[timeline.phase == Phase.SETUP].max() == pytest.approx(
        timeline.parameter_bytes, rel=0.01
    )


def test_it_holds_for_other_batch_sizes() -> None:
    job = sharded(replace(LLAMA, loop=TrainingLoop(accumulation_steps=2)), 4)
    timeline = traced(job)
    built = build(job)
    at_seven = trace.trace_at(job, built, (8, 0), 7)
    first = timeline.step <= 1
    assert held(timeline, 7)[first].tolist() == held(at_seven, 7).tolist()


def test_what_is_communicated_has_streams_of_its_own() -> None:
    timeline = traced(sharded(LLAMA, 8))
    assert set(timeline.stream) == {0, 1, 2}
    gradients = timeline.category == Category.GRADIENT
    # The last gradients are pieces of what was reduced, on the stream of the reduction.
    assert {timeline.stream[i] for i in np.flatnonzero(gradients)} == {2}
    assert set(traced(LLAMA).stream) == set()


class Tied(nn.Module):
    """Rows of modules; the first of one shares a parameter with another's, those of the last share
    a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2))
        self.second = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))
        self.second[0][0].weight = self.first[1][0].weight
        self.alone = nn.ModuleList([nn.Sequential(nn.Linear(4, 4))])
        shared = nn.Linear(4, 4)
        self.third = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), shared) for _ in range(2))


def test_blocks() -> None:
    model = Tied()
    assert blocks(model) == [model.first[0], model.second[1], model.second[2]]
    bert = build(normalize(catalog_job("transformers/bert", {"num_hidden_layers": 3})))
    assert [type(block).__name__ for block in blocks(bert.module)] == ["BertLayer"] * 3
    resnet = build(normalize(catalog_job("torchvision/resnet18")))
    assert [type(block).__name__ for block in blocks(resnet.module)] == ["BasicBlock"] * 8


SMALL = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("torchvision/resnet18", {}),
        ("timm/vit_tiny_patch16_224", {}),
        ("transformers/levit", {}),
        ("transformers/t5", {"num_layers": 2, "num_decoder_layers": 2}),
        (
            "transformers/llava",  # of its images the last layer is gathered, and not used
            {
                "text_config": SMALL | {"num_key_value_heads": 2},
                "vision_config": SMALL | {"image_size": 56, "patch_size": 14},
            },
        ),
        (
            "diffusers/FluxTransformer2DModel",
            {
                "num_layers": 1,
                "num_single_layers": 1,
                "attention_head_dim": 16,
                "num_attention_heads": 2,
                "axes_dims_rope": [4, 4, 8],
                "joint_attention_dim": 32,
                "pooled_projection_dim": 32,
            },
        ),
    ],
)
def test_other_models(name: str, config: dict[str, Any]) -> None:
    job = replace(catalog_job(name, config), precision=Precision.AMP_FP16)
    rank = traced(sharded(job, 4))
    assert rank.affine
    assert any("sharded over 4 ranks" in assumption for assumption in rank.assumptions)
    assert "fully_sharded" in rank.traits
