"""Activation checkpointing is what the model's library does."""

from __future__ import annotations

import pytest
from building import linear, named, stacked, violation

from memplan.types import InputTensor
from memplan_server.models import build
from memplan_server.validation.jobs import job_violations

TEXT = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 2}
UNET = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "sample_size": 32,
}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("transformers/bert", TEXT),
        ("timm/vit_tiny_patch16_224", {}),
        ("diffusers/UNet2DModel", UNET),
    ],
)
def test_the_library_is_told(name: str, config: dict[str, object]) -> None:
    flags = ("gradient_checkpointing", "grad_checkpointing")
    for wanted in (False, True):
        built = build(named(name, config=config, activation_checkpointing=wanted))
        told = [getattr(m, flag, False) for m in built.module.modules() for flag in flags]
        assert any(told) is wanted


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision/resnet18", "torchvision/resnet18 has none of its own: leave it out."),
        ("timm/convit_tiny", "timm/convit_tiny has none: gradient checkpointing not supported"),
    ],
)
def test_a_model_without_it_is_refused(name: str, said: str) -> None:
    found = violation(named(name, activation_checkpointing=True))
    assert found.field == "job.activation_checkpointing"
    assert found.description.startswith(said)
    assert found.description.lower().endswith("leave it out.")


def test_only_models_of_a_catalog_have_it() -> None:
    job = stacked((8,), linear(2), activation_checkpointing=True)
    (found,) = job_violations(job, "job", batch_required=True)
    assert found.field == "job.activation_checkpointing"
    job = named("timm/resnet18", InputTensor(shape=(3, 32, 32)), activation_checkpointing=True)
    assert not list(job_violations(job, "job", batch_required=True))
