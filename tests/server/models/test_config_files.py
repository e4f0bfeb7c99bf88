"""Whole config.json files of Hugging Face, as data."""

from __future__ import annotations

from typing import Any

import pytest
from building import violation

from memplan import model_from_config
from memplan.types import TrainingJob
from memplan_server.jobs import normalize
from memplan_server.models import BuiltModel, build

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0",
    "use_cache": True,
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
}
LLAMA3 = {
    **TEXT,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048,
        "rope_type": "llama3",
    },
    "eos_token_id": [1001, 1009],
    "pretraining_tp": 1,
}
GEMMA2 = {
    **TEXT,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "head_dim": 32,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
ROBERTA = {
    "architectures": ["RobertaForSequenceClassification"],
    "model_type": "roberta",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1024,
    "max_position_embeddings": 514,
    "id2label": {"0": "bad", "1": "so so", "2": "good"},
    "label2id": {"bad": 0, "so so": 1, "good": 2},
}
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "image_token_index": 1000,
    "text_config": {**TEXT, "model_type": "mistral"},
    "vision_config": VISION,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}


def job_of(config: dict[str, Any], task: str = "", **fields: Any) -> TrainingJob:
    model = model_from_config(config, task=task)
    return normalize(TrainingJob(model=model, micro_batch_size=4, **fields))


def built(config: dict[str, Any], task: str = "") -> BuiltModel:
    return build(job_of(config, task))


@pytest.mark.parametrize(
    ("config", "made"),
    [
        (LLAMA3, "LlamaForCausalLM"),
        (GEMMA2, "Gemma2ForCausalLM"),
        (ROBERTA, "RobertaForSequenceClassification"),
        (LLAVA, "LlavaForConditionalGeneration"),
    ],
)
def test_the_class_that_a_file_was_saved_with_is_made(config: dict[str, Any], made: str) -> None:
    assert type(built(config).module).__name__ == made


def test_a_task_goes_before_the_architectures() -> None:
    module = built(LLAMA3, "sequence-classification").module
    assert type(module).__name__ == "LlamaForSequenceClassification"


def test_values_arrive_as_they_were() -> None:
    config: Any = built(LLAMA3).module.config
    assert config.rope_parameters["rope_theta"] == 500000.0
    assert config.rope_parameters["factor"] == 8.0
    assert not config.use_cache
    assert config.dtype is None
    assert built(GEMMA2).module.config.final_logit_softcapping == 30.0  # type: ignore[union-attr]
    assert built(ROBERTA).module.config.num_labels == 3  # type: ignore[union-attr]


def test_nested_model_types_are_those_of_the_file() -> None:
    config: Any = built(LLAVA).module.config
    assert config.text_config.model_type == "mistral"


def test_images_stand_in_the_text() -> None:
    found = built(LLAVA)
    by_name = {tensor.name: tensor for tensor in found.inputs}
    assert by_name["pixel_values"].shape == (1, 3, 64, 64)
    assert (found.stated["input_ids"].row == 1000).sum() == (64 // 16) ** 2
    assert by_name["input_ids"].shape == (512 + 17,)


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"quantization_config": {"bits": 4}}, "config.quantization_config", "precision"),
        ({"model_type": "foo", "auto_map": {"AutoConfig": "a.B"}}, "config.auto_map", "Capture"),
        ({"num_hidden_layers": 10**6}, "config.num_hidden_layers", "10,000"),
        ({"rope_scaling": "wide"}, "config", "cannot be configured"),
        # What transformers says of it has a second line, which is what matters.
        (
            {"hidden_size": "abc"},
            "config",
            "'hidden_size': TypeError: Field 'hidden_size' expected",
        ),
        ({"backbone": "resnet50"}, "config.backbone", "backbone_config"),
    ],
)
def test_what_data_cannot_say_is_refused(change: dict[str, Any], field: str, said: str) -> None:
    found = violation(job_of({**LLAMA3, **change}))
    assert found.field == f"job.model.catalog.{field}"
    assert said in found.description


def test_limits_hold_in_nested_configurations() -> None:
    deep = {**LLAVA, "text_config": {**TEXT, "model_type": "llama", "num_hidden_layers": 10**6}}
    assert violation(job_of(deep)).field.endswith("config.text_config.num_hidden_layers")


def test_code_and_dtype_of_a_file_are_said_not_to_count() -> None:
    said = " ".join(built({**LLAMA3, "auto_map": {"AutoConfig": "a.B"}, "shiny": 1}).assumptions)
    assert "auto_map" in said
    assert "bfloat16" in said
    assert "shiny" in said
