"""Models that the libraries know by name: sizes, inputs, targets, options, refusals."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import torch
from building import named, parameters, violation

from memplan.types import DataType, InputTensor, Loss, Precision
from memplan_server.errors import InvalidJob, UnknownName
from memplan_server.models import build, extract_loss, extract_outputs, list_models, options

CONFIG = "job.model.catalog.config"
HUGE = 2**62


def image(*shape: int, name: str = "", dtype: DataType = DataType.UNSPECIFIED) -> InputTensor:
    return InputTensor(name=name, shape=shape, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("torchvision/resnet50", (3, 224, 224), 25_557_032),
        ("torchvision/vit_b_16", (3, 224, 224), 86_567_656),
        ("torchvision/inception_v3", (3, 299, 299), 27_161_264),
        ("torchvision/r3d_18", (3, 16, 112, 112), 33_371_472),
        ("timm/vit_base_patch16_224", (3, 224, 224), 86_567_656),
        ("timm/efficientnet_b0", (3, 224, 224), 5_288_548),
        ("transformers/bert", (512,), 109_514_298),
        ("transformers/gpt2", (512,), 124_439_808),
        ("transformers/t5", (512,), 60_506_624),
        ("transformers/vit", (3, 224, 224), 85_800_194),
    ],
)
def test_published_sizes_and_default_inputs(name: str, shape: tuple[int, ...], count: int) -> None:
    built = build(named(name))
    assert parameters(built) == count
    (only,) = built.inputs
    assert only.shape == shape
    shown = "x".join(map(str, shape))
    assert any(f"{shown}, the default of {name}" in said for said in built.assumptions)


@pytest.mark.parametrize(
    ("earlier", "present", "shape"),
    [
        ("tv_resnet152", "resnet152.tv_in1k", (3, 224, 224)),
        ("seresnext26tn_32x4d", "seresnext26t_32x4d", (3, 224, 224)),
        ("convnext_small_384_in22ft1k", "convnext_small.fb_in22k_ft_in1k_384", (3, 384, 384)),
    ],
)
def test_a_model_is_found_by_a_name_it_had_before(
    earlier: str, present: str, shape: tuple[int, ...]
) -> None:
    by_earlier, by_present = build(named(f"timm/{earlier}")), build(named(f"timm/{present}"))
    assert by_earlier.inputs[0].shape == by_present.inputs[0].shape == shape
    assert parameters(by_earlier) == parameters(by_present)
    said = f"timm/{earlier} is timm/{present}, the name that timm gives it now"
    assert said in by_earlier.assumptions
    assert f"timm/{earlier}" not in list_models()
    with pytest.raises(UnknownName):
        build(named(f"timm/{earlier}.no_such_tag"))


@pytest.mark.parametrize("name", ["densenet264", "semobilevit_s"])
def test_a_model_that_timm_has_given_up_is_unknown(name: str) -> None:
    with pytest.raises(UnknownName):
        build(named(f"timm/{name}"))


def test_every_name_is_listed_once_and_sorted() -> None:
    names = list_models()
    assert list(names) == sorted(set(names))
    assert {"torchvision/resnet50", "timm/resnet50", "transformers/bert"} <= set(names)
    assert "torchvision/raft_large" not in names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("torchvision/resnet5", "torchvision/resnet50"),
        ("resnet50", "torchvision/resnet50"),
        ("keras/resnet50", "timm/resnet50"),
        ("transformers/bertt", "transformers/bert"),
        ("torchvision/fasterrcnn_resnet50", "torchvision/fasterrcnn_resnet50_fpn"),
    ],
)
def test_unknown_names_come_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        build(named(name))
    assert near in caught.value.nearest


@pytest.mark.parametrize("name", ["torchvision/resnet50", "timm/resnet50", "transformers/resnet"])
def test_the_libraries_stay_offline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was looked for on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    build(named(name))
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"


@pytest.mark.parametrize("name", ["torchvision/resnet50", "timm/resnet50"])
def test_height_width_channels_are_recognised(name: str) -> None:
    found = violation(named(name, image(224, 224, 3)))
    assert found.field == "job.inputs[0].shape"
    assert found.description.startswith("224x224x3 looks like HxWxC")
    assert "3x224x224" in found.description


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_grey_images_need_another_model_or_option(name: str) -> None:
    found = violation(named(name, image(1, 28, 28)))
    assert found.field == "job.inputs[0].shape"
    assert "in_chans" in found.description


def test_auxiliary_heads_are_an_option_and_said() -> None:
    built = build(named("torchvision/deeplabv3_resnet50", config={"aux_loss": True}))
    assert parameters(built) == 42_004_074  # as published
    assert built.inputs[0].shape == (3, 520, 520)
    assert any("auxiliary" in said for said in built.assumptions)


def test_options_change_the_model() -> None:
    assert parameters(build(named("torchvision/resnet18", config={"num_classes": 10}))) == 11181642
    grey = named("timm/resnet18", image(1, 28, 28), config={"in_chans": 1, "num_classes": 10})
    assert parameters(build(grey)) == 11_175_370
    small = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2}
    two = parameters(build(named("transformers/bert", config=small)))
    one = parameters(build(named("transformers/bert", config={**small, "num_hidden_layers": 1})))
    assert two - one == 4 * (64 * 64 + 64) + 2 * 64 * 3072 + 3072 + 64 + 4 * 64


@pytest.mark.parametrize("name", ["torchvision/vit_b_16", "timm/vit_base_patch16_224"])
def test_position_tables_follow_the_image(name: str) -> None:
    built = build(named(name, image(3, 384, 384)))
    assert parameters(built) == 86_567_656 + (24 * 24 - 14 * 14) * 768
    assert built.assumptions == ()


def test_a_stated_image_size_must_agree_with_the_input() -> None:
    config = {"image_size": 224}
    found = violation(named("torchvision/vit_b_16", image(3, 384, 384), config=config))
    assert found.field == "job.inputs[0].shape"
    assert "224x224" in found.description


@pytest.mark.parametrize(
    ("name", "config", "field", "said"),
    [
        ("torchvision/resnet50", {"classes": 10}, "classes", "it has: groups, num_classes"),
        ("torchvision/resnet50", {"num_classes": "ten"}, "num_classes", "a whole number"),
        ("torchvision/resnet50", {"num_classes": 1.5}, "num_classes", "a whole number"),
        ("torchvision/resnet50", {"weights": "DEFAULT"}, "weights", "no such option"),
        ("torchvision/resnet50", {"block": "Bottleneck"}, "block", "no such option"),
        ("timm/resnet18", {"block": "Bottleneck"}, "block", "no such option"),
        ("timm/resnet18", {"pretrained": True}, "pretrained", "no such option"),
        ("timm/vit_base_patch16_224", {"depth": 10**9}, "depth", "at most 10,000"),
        ("transformers/bert", {"n_layers": 2}, "n_layers", "num_hidden_layers"),
        ("transformers/bert", {"num_hidden_layers": 2**40}, "num_hidden_layers", "10,000"),
        ("transformers/bert", {"num_labels": 2**40}, "num_labels", "at most"),
        ("transformers/bert", {"num_hidden_layers": -1}, "num_hidden_layers", "at least 1"),
        ("transformers/bert", {"num_attention_heads": 0}, "num_attention_heads", "at least 1"),
        ("transformers/bert", {"auto_map": {"AutoModel": "a--b"}}, "auto_map", "no such option"),
        (
            "transformers/bert",
            {"attn_implementation": "kernels-community/any"},
            "attn_implementation",
            "one of eager, sdpa, flash_attention_2",
        ),
    ],
)
def test_options_that_do_not_exist_or_have_a_wrong_type(
    name: str, config: dict[str, Any], field: str, said: str
) -> None:
    found = violation(named(name, config=config))
    assert found.field == f"{CONFIG}.{field}"
    assert said in found.description


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("torchvision/resnet50", {"num_classes": HUGE}),
        ("torchvision/resnet50", {"num_classes": 2**40}),
        ("torchvision/resnet50", {"width_per_group": HUGE}),
        ("timm/vit_base_patch16_224", {"embed_dim": HUGE}),
        ("transformers/bert", {"hidden_size": HUGE}),
        ("transformers/bert", {"vocab_size": 2**40}),
        ("transformers/bert", {"hidden_size": 100}),
    ],
)
def test_options_that_no_model_can_be_built_with(name: str, config: dict[str, Any]) -> None:
    found = violation(named(name, config=config))
    assert found.field == CONFIG
    assert "/" not in found.description.replace(name, "")


def test_a_refused_model_leaves_the_initialisers_of_pytorch_as_they_were() -> None:
    violation(named("torchvision/resnet50", config={"num_classes": HUGE}))
    assert bool((torch.nn.init.ones_(torch.zeros(3)) == 1).all())
    assert torch.zeros(1).device.type == "cpu"


def test_every_wrong_option_is_told_at_once() -> None:
    with pytest.raises(InvalidJob) as caught:
        build(named("torchvision/resnet50", config={"a": 1, "num_classes": "x", "groups": None}))
    fields = {v.field.rpartition(".")[2] for v in caught.value.violations}
    assert fields == {"a", "num_classes", "groups"}


def test_tasks_have_heads_and_targets() -> None:
    small = {"num_hidden_layers": 1}
    expected = {
        "masked-lm": {"labels": (128,)},
        "sequence-classification": {"labels": ()},
        "token-classification": {"labels": (128,)},
        "question-answering": {"start_positions": (), "end_positions": ()},
    }
    for task, labels in expected.items():
        job = named("transformers/bert", InputTensor(shape=(128,)), task=task, config=small)
        built = build(job)
        assert {t.name: t.shape for t in built.labels} == labels
        assert built.returns_loss
    wrong = violation(named("transformers/bert", task="image-classification"))
    assert wrong.field == "job.model.catalog.task"
    assert "masked-lm" in wrong.description


def test_ctc_is_no_default() -> None:
    """Its targets are picked out by their values."""
    assert build(named("transformers/wav2vec2")).labels[0].shape == ()
    assert build(named("transformers/wav2vec2", task="ctc")).labels[0].shape == (128,)


def test_masking_by_chance_is_left_out_and_said() -> None:
    built = build(named("transformers/wav2vec2"))
    assert any("apply_spec_augment" in said for said in built.assumptions)
    found = violation(named("transformers/wav2vec2", config={"apply_spec_augment": True}))
    assert found.field == f"{CONFIG}.apply_spec_augment"


def test_sounds_are_waves_where_nothing_says_how_long_a_spectrogram_is() -> None:
    assert build(named("transformers/speecht5")).inputs[0].shape == (160_000,)


def test_spectrograms_have_the_bins_of_the_encoder() -> None:
    assert build(named("transformers/canary")).inputs[0].shape == (1000, 128)
    stacked = build(named("transformers/granite_speech5_ctc"))
    assert stacked.inputs[0].shape == (1000, 320)


def test_another_loss_leaves_the_labels_out() -> None:
    built = build(named("transformers/t5", loss=Loss.CROSS_ENTROPY))
    assert [t.name for t in built.inputs] == ["input_ids", "decoder_input_ids"]
    assert built.labels == ()
    assert not built.returns_loss


@pytest.mark.parametrize("name", ["t5", "mt5", "bart", "pegasus", "marian", "whisper"])
def test_encoder_decoders_know_where_their_decoder_starts(name: str) -> None:
    config: Any = build(named(f"transformers/{name}")).module.config
    assert isinstance(config.decoder_start_token_id, int)
    assert isinstance(config.pad_token_id, int)


@pytest.mark.parametrize(
    ("tensor", "field", "said"),
    [
        (image(1024), "shape", "table of 512 positions"),
        (image(8, 8), "shape", "one sequence"),
        (image(128, dtype=DataType.FLOAT32), "dtype", "int64 or int32"),
        (image(128, name="pixels"), "name", "input_ids"),
    ],
)
def test_inputs_that_transformers_cannot_take(tensor: InputTensor, field: str, said: str) -> None:
    found = violation(named("transformers/bert", tensor))
    assert found.field == f"job.inputs[0].{field}"
    assert said in found.description


@pytest.mark.parametrize(
    ("tensors", "field"),
    [
        ((image(3, 224),), "job.inputs[0].shape"),
        ((image(3, 8, 8, dtype=DataType.INT64),), "job.inputs[0].dtype"),
        ((image(3, 8, 8, name="y"),), "job.inputs[0].name"),
        ((image(3, 8, 8), image(3, 8, 8)), "job.inputs"),
    ],
)
def test_inputs_that_torchvision_cannot_take(tensors: tuple[InputTensor, ...], field: str) -> None:
    assert violation(named("torchvision/resnet18", *tensors)).field == field


def test_images_come_in_the_type_of_the_weights() -> None:
    built = build(named("torchvision/resnet18", precision=Precision.FP16))
    assert built.inputs[0].dtype is DataType.FLOAT16


TWO = {"num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("dbrx", {"n_layers": 2}, "attn_config.rope_theta is 500000.0"),
        ("deepseek_ocr2", {"text_config": TWO}, "text_config.mlp_layer_types is as in"),
        ("deepseek_v2", {"num_hidden_layers": 2}, "num_experts_per_tok is 6"),
        ("dots1", {"num_hidden_layers": 2}, "n_routed_experts is 128"),
        ("glm4v", {"text_config": TWO}, "text_config.rope_parameters.partial_rotary_factor is 0.5"),
        ("hunyuan_v1_dense", {"num_hidden_layers": 2}, "head_dim is 128"),
        ("lfm2_moe", {"num_hidden_layers": 4}, "layer_types is as in models of the kind"),
        ("nemotron", {"num_hidden_layers": 2}, "num_key_value_heads is 8"),
        ("xmod", {"num_hidden_layers": 2}, "default_language is en_XX"),
    ],
)
def test_what_transformers_leaves_open_is_filled_in(
    name: str, config: dict[str, Any], said: str
) -> None:
    built = build(named(f"transformers/{name}", config=config))
    assert any(sentence.startswith(said) for sentence in built.assumptions)


def test_a_task_with_several_classes_takes_the_first() -> None:
    built = build(named("transformers/deit", config={"num_hidden_layers": 1}))
    assert type(built.module).__name__ == "DeiTForImageClassification"


def test_what_is_given_is_not_filled_in() -> None:
    config = {"num_hidden_layers": 2, "num_experts_per_tok": 2}
    built = build(named("transformers/deepseek_v2", config=config))
    assert not any("num_experts_per_tok" in said for said in built.assumptions)


def test_timms_attention_can_be_written_out() -> None:
    def fused(config: dict[str, bool]) -> set[bool]:
        module = build(named("timm/vit_tiny_patch16_224", config=config)).module
        return {m.fused_attn for m in module.modules() if hasattr(m, "fused_attn")}

    assert fused({"fused_attn": False}) == {False}
    assert fused({}) == {True}


def test_a_loss_of_the_model_needs_a_model_that_has_one() -> None:
    assert violation(named("timm/resnet18", loss=Loss.MODEL)).field == "job.loss"


def test_options_are_data() -> None:
    allowed = options.data_only({"a": int, "b": type, "c": tuple[int, ...], "d": torch.nn.Module})
    assert set(allowed) == {"a", "c"}
    taken = options.checked({"a": 2.0, "c": [1, 2]}, allowed, CONFIG, "m")
    assert taken == {"a": 2, "c": (1, 2)}
    assert isinstance(taken["a"], int)


def test_losses_and_outputs_are_found_in_what_models_return() -> None:
    tensor = torch.ones(2, 3)
    assert extract_outputs(tensor) == (tensor,)
    assert len(extract_outputs({"out": tensor, "aux": tensor})) == 2
    assert len(extract_outputs({"logits": tensor, "hidden": tensor})) == 1
    assert extract_loss((tensor, tensor)).dim() == 0
    assert extract_loss({"loss": tensor.sum()}).dim() == 0
    for nothing in (None, {}, (), torch.ones(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="no tensor"):
            extract_outputs(nothing)
    with pytest.raises(ValueError, match="no loss"):
        extract_loss({"logits": tensor})
