"""Messages about errors of libraries: where they arose, and which field is missing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from building import named, violation

from memplan_server.models.explained import explain, first_line, progress

MODULE = """
class Configuration:
    model_type = "fake"
    base_config_key = "text_config"
    sub_configs = ()
    width = None
    heads = None
    ratio = 2

    def to_dict(self):
        return {}


class Layer:
    def __init__(self, config):
        self.size = config.width
        self.ratio = config.ratio
        self.config = config

    def reads(self):
        return self.config.heads[0]

    def goes_on(self):
        return (
            self.ratio
            // self.size
        )

    def assigns(self, config):
        heads = config.heads
        return len(heads)

    def has_not(self):
        return self.config.depth

    def fails_otherwise(self):
        raise ValueError("does not fit in /usr/lib/data/file.txt.")
"""


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A model of a library that is not there."""
    path: Path = tmp_path_factory.mktemp("library") / "modeling_fake.py"
    path.write_text(MODULE)
    name = "transformers.models.fake.modeling_fake"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where the sources of classes are looked for
    spec.loader.exec_module(module)
    yield module.Layer(module.Configuration())
    del sys.modules[name]


def raised(call: Any, *arguments: Any) -> Exception:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing is raised")


def test_fields_that_are_null_are_named(layer: Any) -> None:
    said = explain(raised(layer.reads))
    assert "(Layer.reads of transformers, modeling_fake.py, line 21)" in said
    assert said.endswith("text_config.heads is null there: give it in config.")


def test_values_are_followed_back_to_fields(layer: Any) -> None:
    for call, field in ((layer.goes_on, "width"), (lambda: layer.assigns(layer.config), "heads")):
        said = explain(raised(call))
        assert said.endswith(f" text_config.{field} is null there: give it in config.")


def test_fields_that_a_configuration_does_not_have_are_named(layer: Any) -> None:
    assert "text_config.depth is null there" in explain(raised(layer.has_not))


def test_other_errors_come_with_their_place_and_a_remedy(layer: Any) -> None:
    said = explain(raised(layer.fails_otherwise), "Do otherwise.")
    assert said == (
        "does not fit in ... (Layer.fails_otherwise of transformers, modeling_fake.py, line 37). "
        "Do otherwise."
    )


def test_errors_from_elsewhere_are_as_they_are() -> None:
    assert explain(raised(int, "x")) == "invalid literal for int() with base 10: 'x'."


def test_missing_keys_and_what_is_said_by_keys() -> None:
    assert first_line(KeyError("a")) == "there is no 'a'"
    assert first_line(KeyError("Nothing of 49 is known.")) == "Nothing of 49 is known."


def test_which_of_two_errors_came_later(layer: Any) -> None:
    assert progress(raised(layer.fails_otherwise)) > progress(raised(layer.reads)) > ()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("granite4_vision", "deepstack_layer_map is null there: give it in config."),
        ("qwen4_exp", "text_config.indexer_budget and text_config.indexer_compress_ratio are null"),
        ("gemma4_unified_assistant", "give one that does in config."),
    ],
)
def test_what_a_default_configuration_leaves_open_is_named(name: str, missing: str) -> None:
    found = violation(named(f"transformers/{name}"))
    assert found.field == "job.model.catalog.name"
    assert missing in found.description
    assert f"modeling_{name.removesuffix('_assistant')}.py, line" in found.description


def test_the_layer_that_an_option_does_not_suit_is_named() -> None:
    found = violation(named("transformers/bert", config={"hidden_size": 100}))
    assert "(BertSelfAttention.__init__ of transformers, modeling_bert.py" in found.description


def test_images_that_a_model_is_not_made_for() -> None:
    small = {"num_hidden_layers": 1}
    config = {"text_config": small, "vision_config": small | {"image_size": 224}}
    found = violation(named("transformers/aria", config=config))
    assert "Number of patches 256 not found" in found.description
    assert "AriaProjector.forward" in found.description
    assert found.description.endswith("or a vision_config that fits in config.")
