"""Networks of diffusers, by their configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest
from building import named, parameters, violation

from memplan.types import DataType, InputTensor, Loss, Precision
from memplan_server.errors import UnknownName
from memplan_server.models import build, libraries, list_models

pytestmark = pytest.mark.skipif(
    not libraries.installed("diffusers"), reason="diffusers is not installed"
)
UNET = "diffusers/UNet2DConditionModel"
SMALL: dict[str, Any] = {
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 48,
    "sample_size": 16,
}


def test_they_are_listed() -> None:
    assert UNET in list_models()
    assert "diffusers/DiTTransformer2DModel" in list_models()


def test_inputs_follow_from_the_configuration() -> None:
    built = build(named(UNET, config=SMALL, precision=Precision.BF16))
    assert [(i.name, i.shape, i.dtype) for i in built.inputs] == [
        ("sample", (4, 16, 16), DataType.BFLOAT16),
        ("timestep", (), DataType.INT64),
        ("encoder_hidden_states", (77, 48), DataType.BFLOAT16),
    ]
    assert built.default_loss is Loss.MSE
    said = "the input is sample of 4x16x16 and encoder_hidden_states of 77x48, the default of "
    assert built.assumptions == (said + UNET,)
    assert parameters(built) > 0


def test_inputs_of_the_job_replace_them() -> None:
    given = (
        InputTensor(shape=(4, 8, 32)),
        InputTensor(name="encoder_hidden_states", shape=(120, 48)),
    )
    built = build(named(UNET, *given, config=SMALL))
    assert [i.shape for i in built.inputs] == [(4, 8, 32), (), (120, 48)]
    assert built.assumptions == ()


def test_an_earlier_name_of_a_class() -> None:
    config = {"_class_name": "Transformer2DModel", "norm_type": "ada_norm_zero", "num_layers": 1}
    built = build(named("diffusers/Transformer2DModel", config={**config, "odd": 1}))
    assert type(built.module).__name__ == "DiTTransformer2DModel"
    assert "left out: odd" in built.assumptions[0]


@pytest.mark.parametrize(
    ("name", "config", "inputs", "field", "said"),
    [
        (UNET, {"shiny": 1}, (), "config.shiny", "no such option"),
        (UNET, {"in_channels": "x"}, (), "config.in_channels", "a whole number"),
        (UNET, {"layers_per_block": 10**6}, (), "config.layers_per_block", "1 to 1,000"),
        (UNET, {"sample_size": 10**6}, (), "config.sample_size", "1 to 1,024"),
        (UNET, {"sample_size": -5}, (), "config.sample_size", "1 to 1,024"),
        (UNET, {**SMALL, "in_channels": -1}, (), "config", "cannot be built so"),
        (UNET, {**SMALL, "block_out_channels": [2**40] * 2}, (), "config", "2^44 parameters"),
        (UNET, {**SMALL, "down_block_types": ["Odd"]}, (), "config", "cannot be built so"),
        (UNET, {"addition_embed_type": "image"}, (), "config.addition_embed_type", "Capture"),
        (
            UNET,
            {**SMALL, "sample_size": None},
            (),
            "job.inputs",
            "such as 4x64x64 (--input 4x64x64)",
        ),
        (UNET, {"_class_name": "UNet2DModel"}, (), "config._class_name", "must agree"),
        (UNET, {"quantization_config": {"a": 1}}, (), "config.quantization_config", "Quantised"),
        (UNET, SMALL, ((3, 16, 16),), "job.inputs[0].shape", "must be like 4x16x16"),
        (UNET, SMALL, ((4, 16),), "job.inputs[0].shape", "must be like 4x16x16"),
        (UNET, SMALL, ((4, 16, 16), (), (77, 48), (1,)), "job.inputs[3].name", "no input"),
        ("diffusers/StableDiffusionPipeline", {}, (), "catalog.name", "is a pipeline"),
        ("diffusers/AutoencoderKL", {}, (), "catalog.name", "Capture"),
        ("diffusers/Transformer2DModel", {}, (), "config.norm_type", "ada_norm_zero"),
        ("diffusers/PixArtTransformer2DModel", {}, (), "use_additional_conditions", "must be"),
    ],
)
def test_what_is_refused(
    name: str, config: dict[str, Any], inputs: tuple[Any, ...], field: str, said: str
) -> None:
    given = [InputTensor(shape=shape) for shape in inputs]
    found = violation(named(name, *given, config=config))
    assert field in found.field
    assert said in found.description


@pytest.mark.parametrize("name", [UNET, "diffusers/UNet2DModel"])
def test_the_example_in_the_message_works(name: str) -> None:
    said = violation(named(name)).description
    example = re.search(r"--input ([0-9x]+)", said)
    assert example is not None
    shape = tuple(map(int, example[1].split("x")))
    assert build(named(name, InputTensor(shape=shape))).inputs[0].shape == shape


def test_other_names_do_not_exist() -> None:
    for name in ("UNet9DModel", "__class__", "utils", ""):
        with pytest.raises(UnknownName):
            build(named(f"diffusers/{name}"))
