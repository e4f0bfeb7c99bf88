"""Hugging Face configurations become models of the contract."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import memplan
from memplan import jobfile
from memplan.cli.request import assemble
from memplan.errors import JobFileError
from memplan.types import CatalogModel, Padding, Routing

CONFIG = {"model_type": "bert", "hidden_size": 64, "limits": [0.0, math.inf], "x": None}


class Configuration:
    def to_dict(self) -> dict[str, object]:
        return CONFIG


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def catalog(model: memplan.Model) -> CatalogModel:
    assert model.catalog is not None
    return model.catalog


def test_a_file_a_folder_a_mapping_and_a_configuration_are_the_same(folder: Path) -> None:
    given = [folder / "config.json", str(folder), CONFIG, Configuration()]
    models = [memplan.model_from_config(each, task="masked-lm") for each in given]
    assert all(model == models[0] for model in models)
    assert catalog(models[0]).name == "transformers/bert"
    assert catalog(models[0]).task == "masked-lm"
    assert catalog(models[0]).config["limits"] == [0.0, {"__float__": "Infinity"}]


def test_options_replace_fields_and_labels_become_their_number() -> None:
    labelled = {**CONFIG, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    config = catalog(memplan.model_from_config(labelled, hidden_size=128)).config
    assert config["hidden_size"] == 128
    assert config["num_labels"] == 2
    assert "label2id" not in config


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "no JSON"), ("[]", "no fields"), ("{}", "neither the model_type")],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(JobFileError, match=said):
        memplan.model_from_config(file)
    with pytest.raises(JobFileError, match="cannot be read"):
        memplan.model_from_config(tmp_path / "other.json")


def test_a_job_file_names_a_config_beside_it(folder: Path) -> None:
    job = folder / "job.yaml"
    job.write_text("model: {config_file: config.json, config: {hidden_size: 32}}\nbatch_size: 2\n")
    model = catalog(jobfile.load(job).job.model)
    assert model.name == "transformers/bert"
    assert model.config["hidden_size"] == 32


def test_options_of_the_command_line(folder: Path) -> None:
    options = {
        "config_file": str(folder),
        "sequence_length": 128,
        "attention": "eager",
        "padding": Padding.PADDED,
        "routing": Routing.WORST_CASE,
        "conditions_are_false": True,
    }
    job = assemble(options).request.job
    assert catalog(job.model).config["attn_implementation"] == "eager"
    assert [(tensor.name, tensor.shape) for tensor in job.inputs] == [("input_ids", (128,))]
    assert job.assumptions.padding is Padding.PADDED
    assert job.assumptions.routing is Routing.WORST_CASE
    assert job.assumptions.conditions_are_false


def test_texts_of_others_name_no_file_to_read() -> None:
    text = "model: {config_file: /etc/passwd}\nbatch_size: 2\n"
    with pytest.raises(JobFileError, match="no file can be read here"):
        jobfile.parse(text, files=False)
