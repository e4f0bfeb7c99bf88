"""A whole `config.json` of Hugging Face as a transformers configuration.

    file = read(job.model.catalog.config, "llama", "job.model.catalog.config", "transformers/llama")
    file.config, file.architecture, file.assumptions

A configuration with a `model_type` is a whole file. What it holds besides the fields of its class
(names of weights, of code, of tokens) is left out; what would make another model when it is left
out is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import libraries, options, transformers_config
from memplan_server.models.explained import first_line
from memplan_server.models.transformers_config import configurations

__all__ = ["ConfigFile", "is_whole", "read"]

_BOOKKEEPING = frozenset(
    {
        "architectures",
        "attn_implementation",
        "auto_map",
        "custom_pipelines",
        "dtype",
        "experts_implementation",
        "label2id",
        "name_or_path",
        "return_dict",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "use_pretrained_backbone",
    }
)
"""Fields that say nothing about the module, or that the job says elsewhere."""
_WEIGHTS = "Quantised weights are not simulated. Leave it out to plan with the job's precision."
_BACKBONE = "It has transformers load a network by name. Give a backbone_config instead."
_PER_LAYER = "Layers of different configurations are not simulated."
_REFUSED = {
    "quantization_config": _WEIGHTS,
    "compression_config": _WEIGHTS,
    "backbone": _BACKBONE,
    "backbone_kwargs": _BACKBONE,
    "use_timm_backbone": _BACKBONE,
    "per_layer_config": _PER_LAYER,
}
"""Fields without which it would be another model, and what to do about each."""
_NOT_FIELDS = frozenset({"model_type", "num_labels", "rope_scaling", "rope_theta"})
"""What every configuration takes besides its fields."""
_SPECIAL_FLOAT = "__float__"
"""transformers' way to write infinity into JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigFile:
    """What a `config.json` says."""

    config: Any
    """transformers' configuration."""
    architecture: str
    """The class that it was saved with; empty when it names none."""
    assumptions: tuple[str, ...]


def is_whole(config: Mapping[str, Any]) -> bool:
    """Whether this is a whole file and not some options."""
    return "model_type" in config


def read(given: Mapping[str, Any], model_type: str, field: str, model: str) -> ConfigFile:
    """The configuration that a whole file describes.

    Raises `InvalidJob` for what cannot be had from data alone, and for limits exceeded.
    """
    violations = [*_violations(given, field)]
    if given["model_type"] != model_type:
        said = f"is {given['model_type']!r}, and the model's name is {model}: they must agree."
        violations.insert(0, Violation(f"{field}.model_type", said))
    if violations:
        raise InvalidJob(*violations)
    config_class = libraries.load("transformers").CONFIG_MAPPING[model_type]
    try:
        config = config_class.from_dict(_with_floats(_cleaned(given), config_class))
    except Exception as error:
        said = f"{model} cannot be configured so: {first_line(error)}"
        raise InvalidJob(Violation(field, said)) from error
    return ConfigFile(
        config=config,
        architecture=_architecture(given),
        assumptions=tuple(_assumptions(given, config)),
    )


def _architecture(given: Mapping[str, Any]) -> str:
    named = given.get("architectures")
    return str(named[0]) if isinstance(named, (list, tuple)) and named else ""


def _assumptions(given: Mapping[str, Any], config: Any) -> Iterator[str]:
    if given.get("auto_map"):
        yield "the code that auto_map names is not used; transformers has its own for the model"
    dtype = given.get("dtype") or given.get("torch_dtype")
    if dtype not in (None, "float32"):
        yield f"the file's {dtype} is how weights were saved; the job's precision says their type"
    known = frozenset().union(*map(transformers_config.fields, configurations(config)))
    unknown = sorted(name for name in _cleaned(given) if name not in known | _NOT_FIELDS)
    if unknown:
        yield f"fields that the configuration's class does not have: {', '.join(unknown[:10])}"


def _violations(value: Any, field: str) -> Iterator[Violation]:
    """What is refused, however deep it is."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _violations(item, f"{field}[{index}]")
    if not isinstance(value, Mapping):
        return
    yield from options.limits(value, field)
    for name, item in value.items():
        if name in _REFUSED and item not in (None, False, {}):
            yield Violation(f"{field}.{name}", _REFUSED[name])
        else:
            yield from _violations(item, f"{field}.{name}")


def _with_floats(fields: dict[str, Any], config_class: Any) -> dict[str, Any]:
    """Numbers as the class takes them: a whole one may have been written with a fraction of 0."""
    takes = {f.name: f.type for f in dataclasses.fields(config_class)}
    nested = getattr(config_class, "sub_configs", {})
    made: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and name in nested:
            known = libraries.load("transformers").CONFIG_MAPPING
            named = value.get("model_type")
            inner = known[named] if named in known else nested[name]
            made[name] = _with_floats(dict(value), inner) if _has_fields(inner) else value
        elif type(value) is int and name in takes:
            made[name] = options.number(value, takes[name])
        else:
            made[name] = value
    return made


def _has_fields(config_class: Any) -> bool:
    return dataclasses.is_dataclass(config_class)


def _cleaned(value: Any) -> Any:
    """The data without bookkeeping; labels as their number."""
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {_SPECIAL_FLOAT}:
        return float(value[_SPECIAL_FLOAT])
    kept = {
        name: _cleaned(item)
        for name, item in value.items()
        if name not in _BOOKKEEPING and name not in _REFUSED and not name.startswith("_")
    }
    labels = kept.pop("id2label", None)
    if isinstance(labels, Mapping):
        kept["num_labels"] = len(labels)
    return kept
