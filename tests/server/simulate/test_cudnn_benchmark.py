"""With cudnn.benchmark the cache is emptied after the first call of each convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from jobs import catalog_job, mnist
from torch import nn
from torch.nn import functional

from memplan.types import TrainingJob
from memplan_server import models
from memplan_server.allocator import replay
from memplan_server.measure import real
from memplan_server.simulate import device, worker
from memplan_server.simulate import trace as tracing
from memplan_server.simulate.recorder import Recorder
from memplan_server.timeline import Timeline

AMPERE = (8, 0)


def recorded(*calls: tuple[int, int, int, int]) -> Recorder:
    """Forward and backward of 3x3 convolutions, each (batch, padding, groups, lines)."""
    recorder = Recorder(device.register(), cudnn_benchmark=True)
    with recorder:
        for batch, padding, groups, lines in calls:
            x = torch.empty(batch, 8, lines, 8, device=device.register(), requires_grad=True)
            w = torch.empty(8, 8 // groups, 3, 3, device=device.register(), requires_grad=True)
            y = functional.conv2d(x, w, padding=padding, groups=groups)
            torch.autograd.grad(y, (x, w), torch.empty_like(y))
    return recorder


@pytest.mark.parametrize(
    ("calls", "emptied"),
    [
        ([(4, 1, 1, 8)], 3),  # forward, and two directions in backward
        ([(4, 1, 1, 8), (4, 1, 1, 8)], 3),  # the second is like the first
        ([(4, 1, 1, 8), (2, 1, 1, 8)], 6),  # another batch size
        ([(4, 1, 1, 8), (4, 0, 1, 8)], 6),  # another padding
        ([(4, 1, 1, 8), (4, 1, 2, 8)], 6),  # other groups
        ([(4, 1, 1, 8), (4, 1, 1, 9)], 6),  # another image
        ([(4, 1, 8, 8)], 0),  # depthwise: PyTorch's own kernel
    ],
)
def test_the_first_call_of_each_kind(calls: list[tuple[int, int, int, int]], emptied: int) -> None:
    recording = recorded(*calls).recording
    places = recording.cache_emptied
    assert len(places) == emptied
    for place in places:  # results are there already; the workspace of the call follows
        assert recording.storages[recording.events[place]].workspace.startswith("cudnn/")
    assert len(recording.assumptions) == min(1, emptied)


def traced(job: TrainingJob) -> Timeline:
    return Timeline.from_bytes(worker.trace(job, AMPERE))


RESNET = catalog_job("torchvision/resnet18", cudnn_benchmark=True)


def test_only_the_first_step_empties_the_cache() -> None:
    timeline, plain = traced(RESNET), traced(replace(RESNET, cudnn_benchmark=False))
    assert len(timeline.cache_emptied) == len(timeline.convolutions)
    assert not timeline.step[list(timeline.cache_emptied)].any()
    assert plain.cache_emptied == ()
    assert np.array_equal(plain.events, timeline.events)


def test_one_timeline_holds_for_every_batch_size() -> None:
    timeline = traced(RESNET)
    assert timeline.affine
    for batch_size in (1, 2, 13):
        direct = tracing.trace_at(RESNET, models.build(RESNET), AMPERE, batch_size)
        assert direct.cache_emptied == timeline.cache_emptied


class WithReference(nn.Module):
    """Convolves the batch and four images of its own: alike for cuDNN at batch size 4 only."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3, device="meta"), nn.Linear(8, 10)
        self.head.to("meta")
        self.register_buffer("reference", torch.empty(4, 3, 224, 224, device="meta"))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        own = self.convolution(self.reference).mean((0, 2, 3))
        result: torch.Tensor = self.head(self.convolution(images).mean((2, 3)) + own)
        return result


@pytest.mark.parametrize("benchmark", [False, True])
def test_shapes_that_meet_at_one_batch_size_are_no_line(benchmark: bool) -> None:
    job = replace(RESNET, cudnn_benchmark=benchmark)
    built = replace(models.build(job), module=WithReference())
    found = tracing.trace_affine(job, built, AMPERE)
    assert (found is None) is benchmark


def test_models_without_convolutions_do_not_notice() -> None:
    plain = mnist()
    assert traced(replace(plain, cudnn_benchmark=True)).to_bytes() == traced(plain).to_bytes()


def test_the_reserved_peak_is_what_is_seen_meanwhile() -> None:
    timeline = traced(RESNET)
    events, differences = timeline.events.tolist(), set()
    for batch_size in (8, 32, 48, 64):
        sizes = timeline.sizes(batch_size)
        emptied = replay(events, sizes, cache_emptied=timeline.cache_emptied)
        kept = replay(events, sizes)
        differences.add(emptied.peak_reserved_bytes - kept.peak_reserved_bytes)
        assert emptied.peak_reserved_bytes >= emptied.peak_allocated_bytes
    assert differences != {0}


def test_real_runs_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    real.set_backends(RESNET)
    assert torch.backends.cudnn.benchmark
    real.set_backends(mnist())
    assert not torch.backends.cudnn.benchmark
