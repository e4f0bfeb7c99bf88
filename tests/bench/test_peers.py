"""What stands beside the estimates, against arithmetic and against PyTorch's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from memplan.types import (
    Convolution,
    Flatten,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Model,
    Normalization,
    NormalizationType,
    Optimizer,
    OptimizerType,
    Precision,
    TrainingJob,
)
from memplan_server.jobs import normalize
from memplan_server.simulate import worker
from memplan_server.timeline import Timeline
from peers import mem_tracker, rules
from peers.fake import build
from reporting.families import family


def stack(*layers: Layer, shape: tuple[int, ...] = (32,), **fields: object) -> TrainingJob:
    model = Model(layer_stack=LayerStack(layers=layers))
    values = {"model": model, "inputs": (InputTensor(shape=shape),), "micro_batch_size": 16}
    return normalize(TrainingJob(**(values | fields)))  # type: ignore[arg-type]


PERCEPTRON = (Layer(flatten=Flatten()), Layer(linear=Linear(out_features=64)))
PERCEPTRON = (*PERCEPTRON, Layer(linear=Linear(out_features=10)))
PARAMETERS = 32 * 64 + 64 + 64 * 10 + 10


def test_the_textbook_counts_the_outputs_of_layers_once() -> None:
    job = stack(*PERCEPTRON)  # flatten gives a view
    assert rules.activation_bytes_per_sample(job, build(job)) == 4 * (64 + 10)


def test_the_textbook_counts_outputs_in_the_type_they_have() -> None:
    job = stack(*PERCEPTRON, precision=Precision.AMP_FP16)
    assert rules.activation_bytes_per_sample(job, build(job)) == 2 * (64 + 10)


def test_the_textbooks_fixed_part_is_parameters_times_four() -> None:
    job = stack(*PERCEPTRON, optimizer=Optimizer(type=OptimizerType.ADAM))
    state = rules.model_state_bytes(Timeline.from_bytes(worker.trace(job, (8, 0))))
    steps = 4 * 4  # and the step count of each of the four tensors
    assert 0 <= state - 4 * 4 * PARAMETERS <= 512 * steps


@pytest.mark.parametrize(
    ("precision", "factor"),
    [(Precision.FP32, 4), (Precision.AMP_FP16, 2), (Precision.BF16, 2)],
)
def test_accelerate_multiplies_parameters_and_buffers(precision: Precision, factor: int) -> None:
    layers = (
        Layer(convolution=Convolution(out_channels=8, kernel_size=(3,))),
        Layer(normalization=Normalization(type=NormalizationType.BATCH)),
    )
    job = stack(*layers, shape=(3, 8, 8), precision=precision)
    batch_norm = 2 * 8 + 2 * 8  # weight and bias, running mean and variance
    size = 4 * (3 * 8 * 9 + 8 + batch_norm) + 8  # and one int64 count
    assert rules.accelerate_bytes(job, build(job)) == factor * size


def test_mem_tracker_without_its_modules_gives_the_same_peak() -> None:
    job = stack(*PERCEPTRON, optimizer=Optimizer(type=OptimizerType.ADAM))
    whole = mem_tracker.peak_bytes(job, build(job))
    assert whole == mem_tracker.peak_bytes(job, build(job), mem_tracker.OverallPeak)
    assert whole > 4 * 4 * PARAMETERS


def test_mem_tracker_answers_on_a_line_between_two_batch_sizes() -> None:
    job = stack(*PERCEPTRON)
    found = mem_tracker.peaks_by_batch_size(job, build(job), {1024, 2048, 4096})
    assert list(found) == sorted(found)
    assert found[2048] - found[1024] == (found[4096] - found[1024]) // 3
    exact = mem_tracker.peak_bytes(replace(job, micro_batch_size=4096), build(job))
    assert found[4096] == exact


class Attention(nn.Module):
    """A layer that projects queries, keys and values at once."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)


PATCHES = nn.Conv2d(3, 8, 4, stride=4)


@pytest.mark.parametrize(
    ("layers", "traits", "expected"),
    [
        ((PATCHES, Attention()), (), "transformer"),
        ((PATCHES, nn.Linear(8, 8)), ("attention",), "transformer"),
        ((PATCHES, nn.Linear(8, 8)), (), "mlp"),
        ((nn.Conv2d(3, 8, 3), Attention()), (), "hybrid"),
        ((nn.Conv2d(3, 8, 3), nn.Linear(8, 8)), (), "cnn"),
        ((nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)), (), "depthwise-cnn"),
        ((nn.Conv2d(8, 8, 3, groups=2),), (), "grouped-cnn"),
        ((nn.LSTM(8, 8),), ("recurrent",), "recurrent"),
    ],
)
def test_a_family_follows_from_the_layers(
    layers: tuple[nn.Module, ...], traits: tuple[str, ...], expected: str
) -> None:
    assert family(nn.Sequential(*layers), traits) == expected


def test_peers_leave_the_model_where_it_was() -> None:
    job = stack(*PERCEPTRON)
    built = build(job)
    mem_tracker.peak_bytes(job, built)
    assert all(p.is_meta and p.dtype == torch.float32 for p in built.module.parameters())
