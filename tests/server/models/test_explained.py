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
    sub_configs = ()
    width = None
    heads = None
    ratio = 2

    def to_dict(self):
        return {}


class Whole(Configuration):
    sub_configs = ("text_config",)
    text_config = Configuration()


def whole(config, call):
    return call()


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

    def passes_on(self, config):
        return self.takes(config.heads)

    def takes(self, heads):
        return heads["x"]

    def looks_up(self):
        size = getattr(self.config, "width", None)
        return size * 2

    def has_not(self):
        return self.config.depth

    def fails_otherwise(self):
        raise ValueError("does not fit in /usr/lib/data/file.txt.")


class Odd:
    heads = None

    @property
    def config(self):
        raise RuntimeError("not now")

    def fails(self):
        heads = self.heads
        return heads[0]
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
    whole = module.Whole()
    layer = module.Layer(whole.text_config)
    layer.odd = module.Odd()
    layer.within = lambda call: raised(module.whole, whole, call)
    yield layer
    del sys.modules[name]


def raised(call: Any, *arguments: Any) -> Exception:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing is raised")


def line(text: str) -> int:
    """The number of the module's line that has this text."""
    return next(n for n, line in enumerate(MODULE.splitlines(), 1) if text in line)


def test_fields_that_are_null_are_named(layer: Any) -> None:
    said = explain(layer.within(layer.reads))
    assert f"(Layer.reads of transformers, modeling_fake.py, line {line('heads[0]')})" in said
    assert said.endswith("text_config.heads is null there: give it in config.")


@pytest.mark.parametrize(
    ("method", "field"),
    [("goes_on", "width"), ("assigns", "heads"), ("passes_on", "heads"), ("looks_up", "width")],
)
def test_values_are_followed_back_to_fields(layer: Any, method: str, field: str) -> None:
    arguments = (layer.config,) if method in ("assigns", "passes_on") else ()
    said = explain(layer.within(lambda: getattr(layer, method)(*arguments)))
    assert said.endswith(f" text_config.{field} is null there: give it in config.")


def test_fields_that_a_configuration_does_not_have_are_named(layer: Any) -> None:
    said = explain(layer.within(layer.has_not))
    assert "The configuration has no text_config.depth: give a whole one" in said


def test_other_errors_come_with_their_place_and_a_remedy(layer: Any) -> None:
    said = explain(raised(layer.fails_otherwise), "Do otherwise.")
    where = f"Layer.fails_otherwise of transformers, modeling_fake.py, line {line('ValueError')}"
    assert said == f"does not fit in ... ({where}). Do otherwise."


def test_objects_that_cannot_be_asked_do_not_hide_the_error(layer: Any) -> None:
    said = explain(raised(layer.odd.fails), "Do otherwise.")
    assert said.startswith("'NoneType' object is not subscriptable (Odd.fails of transformers")
    assert said.endswith("Do otherwise.")


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
        ("chameleon", "vocabulary_map is null there: give it in config."),
        ("diffusion_gemma", "text_config.num_experts is null there: give it in config."),
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
