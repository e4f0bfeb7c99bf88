"""Activation checkpointing: what is kept, what comes again in backward."""

from __future__ import annotations

from dataclasses import replace

import pytest
from jobs import catalog_job

from memplan.types import Precision, TrainingJob
from memplan_server.allocator import replay
from memplan_server.simulate import worker
from memplan_server.timeline import Category, Timeline

LAYERS = 6
WIDTH, LENGTH = 128, 128
BERT = catalog_job(
    "transformers/bert",
    {
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "intermediate_size": 4 * WIDTH,
        "vocab_size": 64,
    },
)


def traced(job: TrainingJob) -> Timeline:
    return Timeline.from_bytes(worker.trace(job, (8, 0)))


def peak(timeline: Timeline, batch_size: int) -> int:
    return replay(timeline.events.tolist(), timeline.sizes(batch_size)).peak_allocated_bytes


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.AMP_BF16])
def test_layers_keep_little_more_than_their_inputs(precision: Precision) -> None:
    job = replace(BERT, precision=precision)
    plain, checkpointed = traced(job), traced(replace(job, activation_checkpointing=True))
    assert checkpointed.affine
    growth = [(peak(t, 64) - peak(t, 32)) / 32 for t in (plain, checkpointed)]
    # One layer's activations are there at once, and an input of each layer.
    inputs = LAYERS * LENGTH * WIDTH * 4
    assert growth[1] < growth[0] / LAYERS * 2 + inputs


def test_autocast_copies_weights_again_for_each_layer_and_lets_go_of_them() -> None:
    job = replace(BERT, precision=Precision.AMP_BF16)
    plain, checkpointed = traced(job), traced(replace(job, activation_checkpointing=True))
    copies, again = (list(t.category).count(Category.AUTOCAST_COPY) for t in (plain, checkpointed))
    of_layers = 2 * LAYERS * 6  # in each of two steps: four of attention, two of the MLP
    assert copies + of_layers <= again <= copies + 2 * of_layers
    assert peak(checkpointed, 1) < peak(plain, 1) + WIDTH * WIDTH


def test_it_is_off_unless_asked_for() -> None:
    off = replace(BERT, activation_checkpointing=False)
    assert traced(BERT).to_bytes() == traced(off).to_bytes()
