"""How transformers' image-and-text models are given their images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import named, violation
from torch import nn

from memplan.types import Assumptions, InputTensor, TrainingJob
from memplan_server.errors import InvalidJob
from memplan_server.jobs import normalize
from memplan_server.models import BuiltModel, build, construction, libraries, transformers_config
from memplan_server.simulate import device, trace
from memplan_server.training import stated

TEXT = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 4}
VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"intermediate_size": 64}
SMALL = {"text_config": TEXT, "vision_config": VISION}


@pytest.fixture(scope="module", autouse=True)
def _device() -> None:
    device.register()


def small(name: str, *inputs: InputTensor, **fields: Any) -> TrainingJob:
    return normalize(named(f"transformers/{name}", *inputs, config=SMALL, **fields))


def shapes(built: BuiltModel) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in built.inputs}


def placeholders(built: BuiltModel) -> int:
    config: Any = built.module.config
    token = getattr(config, "image_token_id", None) or config.image_token_index
    return int((built.stated["input_ids"].row == token).sum())


def test_images_of_each_sample_apart() -> None:
    vision = VISION | {"image_size": 64, "patch_size": 16}
    config = {"text_config": TEXT, "vision_config": vision}
    built = build(named("transformers/smolvlm", config=config))
    assert shapes(built)["pixel_values"] == (1, 3, 64, 64)  # of each sample: five dimensions in all
    assert not built.flattened


def test_vision_parts_are_as_wide_as_the_text() -> None:
    vision = {"depth": 1, "hidden_size": 64, "num_heads": 4, "deepstack_visual_indexes": []}
    config = {"text_config": TEXT | {"head_dim": 16}, "vision_config": vision}
    built = build(named("transformers/qwen3_vl", config=config))
    assert any("out_hidden_size of the vision part is 64" in said for said in built.assumptions)


def test_images_are_cut_into_tiles_by_their_size() -> None:
    """LLaVA-NeXT: an overview of 24 x 24 vectors, and the tiles' without padding, each row of which
    ends with one more."""
    default = build(small("llava_next"))
    assert shapes(default)["pixel_values"] == (1, 5, 3, 336, 336)
    assert placeholders(default) == 24 * 24 + 48 * (48 + 1)
    wide = build(small("llava_next", InputTensor(name="pixel_values", shape=(3, 336, 1344))))
    assert shapes(wide)["pixel_values"] == (1, 4, 3, 336, 336)  # best of 336x1008
    assert wide.stated["image_sizes"].row.tolist() == [[336, 1344]]
    assert placeholders(wide) == 24 * 24 + 18 * (72 + 1)
    assert "images become 4 tile(s) of 336x336" in wide.stated["image_sizes"].assumption


def test_texts_leave_room_for_images_beyond_what_the_configuration_says() -> None:
    built = build(small("llava_next"))
    assert built.module.config.text_config.max_position_embeddings == 2048  # type: ignore[union-attr]
    assert shapes(built)["input_ids"][0] > placeholders(built) > 2048


def test_some_models_cut_an_image_only_where_it_is_alone() -> None:
    built = build(small("llava_onevision", assumptions=Assumptions(images_per_sample=2)))
    assert shapes(built)["pixel_values"] == (2, 1, 3, 384, 384)
    assert built.stated["batch_num_images"].row.tolist() == [2]
    assert placeholders(built) == 2 * (27 * 27 + 1)


def test_images_keep_their_size() -> None:
    built = build(small("mistral3", InputTensor(name="pixel_values", shape=(3, 280, 560))))
    assert shapes(built)["pixel_values"] == (1, 3, 280, 560)
    assert placeholders(built) == (280 // 28) * (560 // 28)
    odd = small("mistral3", InputTensor(name="pixel_values", shape=(3, 280, 561)))
    assert "multiples of 28" in violation(odd).description


def test_several_images_have_a_size_each() -> None:
    built = build(small("mistral3", assumptions=Assumptions(images_per_sample=3)))
    assert shapes(built)["image_sizes"] == (3, 2)
    assert built.flattened == {"pixel_values", "image_sizes"}
    assert placeholders(built) == 3 * 16 * 16


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision", "lfm2_vl", "mistral3"])
def test_a_step_with_image_sizes_is_executed(name: str) -> None:
    job = small(name, assumptions=Assumptions(images_per_sample=2))
    timeline = trace.trace_at(job, build(job), (8, 0), 3)
    assert timeline.parameter_count > 0
    assert any("2 image(s) of" in said for said in timeline.assumptions)


def test_patches_of_each_image_apart() -> None:
    built = build(small("lfm2_vl", InputTensor(name="pixel_values", shape=(3, 64, 96))))
    assert shapes(built)["pixel_values"] == (1, 4 * 6, 3 * 16 * 16)
    assert built.stated["spatial_shapes"].row.tolist() == [[4, 6]]
    assert built.stated["pixel_attention_mask"].row.sum() == 24
    assert placeholders(built) == 24 // 4


def test_patches_are_rows_or_small_images() -> None:
    text = {"text_config": {"num_hidden_layers": 1}}
    rows = build(named("transformers/qwen2_5_vl", config=text | {"vision_config": {"depth": 1}}))
    assert shapes(rows)["pixel_values"] == (32 * 32, 3 * 2 * 14 * 14)
    vision = {"vision_config": {"num_hidden_layers": 1}}
    images = build(named("transformers/paddleocr_vl", config=text | vision))
    assert shapes(images)["pixel_values"] == (32 * 32, 3, 14, 14)
    assert placeholders(rows) == placeholders(images) == 16 * 16


@pytest.mark.parametrize(
    ("name", "name_of_input", "shape"),
    [
        ("pix2struct", "flattened_patches", (2048, 2 + 3 * 16 * 16)),
        ("vision-encoder-decoder", "pixel_values", (3, 224, 224)),
    ],
)
def test_images_that_a_decoder_describes(
    name: str, name_of_input: str, shape: tuple[int, ...]
) -> None:
    built = build(named(f"transformers/{name}"))
    assert shapes(built) == {name_of_input: shape}
    assert [label.shape for label in built.labels] == [(128,)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pix2struct", "vision-encoder-decoder", "ernie4_5_vl_moe"])
def test_steps_by_default_are_executed(name: str) -> None:
    config = {"text_config": {"num_hidden_layers": 2}} if name == "ernie4_5_vl_moe" else {}
    job = normalize(named(f"transformers/{name}", config=config))
    assert trace.trace_at(job, build(job), (8, 0), 2).parameter_count > 10**8


def test_a_placeholder_token_that_is_null_is_named() -> None:
    assert "image_token_id is null" in violation(named("transformers/instructblip")).description


@pytest.mark.parametrize("name", ["aya_vision", "idefics3", "smolvlm"])
def test_default_parts_fit(name: str) -> None:
    one = {"num_hidden_layers": 1}
    config = {"text_config": one, "vision_config": one}
    built = build(named(f"transformers/{name}", config=config))
    assert placeholders(built) > 0
    assert any("vision_config is as in models of the kind" in said for said in built.assumptions)


TILED = {"image_grid_pinpoints": [[56, 112], [112, 56]]}
TILED |= {"text_config": TEXT, "vision_config": VISION | {"image_size": 56}}


@pytest.mark.parametrize(
    ("name", "config", "shape"),
    [
        ("llava_next", TILED, (3, 56, 112)),
        ("lfm2_vl", SMALL, (3, 64, 96)),
        ("mistral3", SMALL, (3, 56, 112)),
    ],
)
def test_inputs_are_what_the_model_takes_with_data(
    name: str, config: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """The library counts placeholder tokens and vectors, and looks the tokens up."""
    inputs = (
        InputTensor(name="pixel_values", shape=shape),
        InputTensor(name="input_ids", shape=(64,)),
    )
    with construction.made_on("cpu"):
        built = build(named(f"transformers/{name}", *inputs, config=config))
    for parameter in built.module.parameters():
        nn.init.normal_(parameter.data, std=0.02)
    batch = {spec.name: of_batch(built, spec) for spec in (*built.inputs, *built.labels)}
    loss = built.module(**batch, **built.options).loss.detach()
    assert 0 < float(loss) < 20


def of_batch(built: BuiltModel, spec: InputTensor) -> torch.Tensor:
    values = stated.batch_of(built, spec, 2)
    return torch.randn(stated.shape_of(built, spec, 2)) if values is None else values


def test_vocabularies_have_room_for_placeholder_tokens() -> None:
    built = build(small("llava_next"))
    config: Any = built.module.config
    assert config.image_token_id == 32_000
    assert config.text_config.vocab_size == 32_064  # as published
    assert any("vocab_size of the text is 32064" in said for said in built.assumptions)


def test_images_described_otherwise_are_left_out() -> None:
    refused = violation(named("transformers/molmo2"))
    assert "image_token_pooling" in refused.description
    assert "Capture the module" in refused.description


def test_parts_of_a_nested_configuration_leave_the_others_as_they_are() -> None:
    built = build(
        named("transformers/llava_next", config={"vision_config": {"num_hidden_layers": 2}})
    )
    vision: Any = built.module.config.vision_config  # type: ignore[union-attr]
    assert (vision.num_hidden_layers, vision.hidden_size, vision.patch_size) == (2, 1024, 14)
    assert torch.Size((1024, 3, 14, 14)) in {p.shape for p in built.module.parameters()}


@pytest.mark.slow
def test_nested_configurations_are_what_they_were_where_nothing_is_overridden() -> None:
    """Of all model types."""
    for name in libraries.load("transformers").CONFIG_MAPPING:
        try:
            default = transformers_config.make(name, {}, "config", name)
        except InvalidJob:
            continue
        for part in default.sub_configs:
            config = getattr(default, part, None)
            if config is not None:
                again = transformers_config.make(name, {part: {}}, "config", name)
                assert getattr(again, part).to_dict() == config.to_dict(), (name, part)
