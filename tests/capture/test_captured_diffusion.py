"""Networks of diffusers by their configuration take what the captured modules take, to the byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusion import CONDITIONED, SMALL, STABLE_DIFFUSION_1_5
from tracing import peaks, traced

import memplan
from memplan.capturing.modules import LARGER_BATCHES
from memplan.types import InputTensor, Loss, Model, Optimizer, OptimizerType, TrainingJob
from memplan_server import models
from memplan_server.jobs import normalize
from memplan_server.models import libraries

pytestmark = pytest.mark.skipif(
    not libraries.installed("diffusers"), reason="diffusers is not installed"
)
ADAMW = Optimizer(type=OptimizerType.ADAMW)


def configured(config: dict[str, Any], **fields: Any) -> TrainingJob:
    job = TrainingJob(
        model=memplan.model_from_config(config), optimizer=ADAMW, micro_batch_size=4, **fields
    )
    return normalize(job)


def captured(job: TrainingJob) -> TrainingJob:
    built = models.build(job)
    named = {i.name: InputTensor(shape=i.shape, dtype=i.dtype) for i in built.inputs}
    graph = memplan.capture(built.module, (), kwargs=named, loss=Loss.MSE)
    assert set(graph.assumptions) <= {LARGER_BATCHES.format(63)}  # as diffusers' upsampling asks
    return replace(job, model=Model(graph=graph), loss=Loss.MSE, inputs=())


def same(config: dict[str, Any]) -> int:
    """The parameters of a configuration that takes the same in both ways."""
    job = configured(config)
    own, other = traced(job), traced(captured(job))
    assert own.affine
    assert other.affine
    assert other.parameter_count == own.parameter_count
    assert [peaks(other, b) for b in (4, 50)] == [peaks(own, b) for b in (4, 50)]
    return own.parameter_count


QUICK = "DiTTransformer2DModel"


@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SMALL if n != QUICK)]
)
def test_allocated_bytes_are_equal(name: str) -> None:
    same(SMALL[name])


@pytest.mark.slow
def test_the_denoiser_of_stable_diffusion() -> None:
    assert same(STABLE_DIFFUSION_1_5) == 859_520_964


def test_a_module_of_ones_own() -> None:
    """As docs/your-own-model.md has it: the module and the optimizer of the training script."""
    network = libraries.load("diffusers").UNet2DConditionModel
    arguments = {k: v for k, v in CONDITIONED.items() if not k.startswith("_")}
    with torch.device("meta"):
        unet = network(**arguments)
    noisy, noise = torch.empty(4, 4, 16, 16), torch.empty(4, 4, 16, 16)
    timesteps, text = torch.zeros(4, dtype=torch.int64), torch.empty(4, 77, 48)
    job = memplan.capture_job(
        unet,
        (noisy, timesteps, text),
        torch.optim.AdamW(unet.parameters()),
        loss=lambda output, noise: torch.nn.functional.mse_loss(output.sample, noise),
        targets=noise,
    )
    own = traced(configured(CONDITIONED))
    assert peaks(traced(job), 4) == peaks(own, 4)
