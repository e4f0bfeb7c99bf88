"""A transformers configuration from a model type and overrides.

    config = make("bert", {"num_hidden_layers": 6}, "job.model.catalog.config", "transformers/bert")

Overrides are checked against the fields of the configuration class, nested ones (`text_config`)
against the class of the nested configuration. What could load weights, files or code is no option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import libraries, options
from memplan_server.models.explained import first_line

__all__ = ["IMPLEMENTATIONS", "configurations", "fields", "make"]

IMPLEMENTATIONS: Mapping[str, tuple[str, ...]] = {
    "attn_implementation": ("eager", "sdpa", "flash_attention_2"),
    "experts_implementation": ("eager", "grouped_mm", "batched_mm"),
}
"""Options that are no fields, and what each can be."""

_NO_OPTIONS = frozenset(
    {
        "architectures",
        "auto_map",
        "backbone",
        "backbone_kwargs",
        "dtype",
        "id2label",
        "label2id",
        "name_or_path",
        "per_layer_config",
        "quantization_config",
        "return_dict",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_pretrained_backbone",
        "use_timm_backbone",
    }
)
"""Fields that name weights, files or code, or that the training job says elsewhere."""


_WRITTEN_BESIDES = ("model_type", "transformers_version")
"""What a configuration written out has besides what it is made from."""

_NOT_FIELDS = {"num_labels": int, "output_attentions": bool}
"""Options that every configuration takes besides its fields."""


def make(model_type: str, overrides: Mapping[str, Any], field: str, model: str) -> Any:
    """The configuration. Raises `InvalidJob`."""
    config_class = libraries.load("transformers").CONFIG_MAPPING[model_type]
    try:
        default = config_class()
    except Exception as error:
        said = f"{model} has no default configuration: {first_line(error)}"
        raise InvalidJob(Violation("job.model.catalog.name", said)) from error
    given = {name: value for name, value in overrides.items() if name not in IMPLEMENTATIONS}
    return _overridden(default, given, field, model) if given else default


def configurations(config: Any) -> list[Any]:
    """The configuration and those nested in it."""
    found = [config]
    for name in getattr(config, "sub_configs", ()):
        nested = getattr(config, name, None)
        if nested is not None:
            found += configurations(nested)
    return found


def fields(config: Any) -> frozenset[str]:
    """Names of the fields that the configuration's class has."""
    names = {f.name for f in dataclasses.fields(config)}
    return frozenset(names | set(config.attribute_map))


def _overridden(
    default: Any,
    overrides: Mapping[str, Any],
    field: str,
    model: str,
    base: Mapping[str, Any] | None = None,
) -> Any:
    """`default` with `overrides`, made anew so that what follows from them is computed again.

    base: the values in which `default` is not the default of its class.
    """
    nested = {
        name: getattr(default, name)
        for name, value in overrides.items()
        if name in default.sub_configs and isinstance(value, Mapping)
    }
    plain = {name: value for name, value in overrides.items() if name not in nested}
    given = options.checked(plain, _allowed(default), field, model)
    for name, config in nested.items():
        given[name] = _nested(config, overrides[name], f"{field}.{name}", model)
    replaced = {default.attribute_map.get(name, name) for name in given}
    kept = {name: value for name, value in (base or {}).items() if name not in replaced}
    try:
        return type(default)(**kept, **given)
    except Exception as error:
        said = f"{model} cannot be configured so: {first_line(error)}"
        raise InvalidJob(Violation(field, said)) from error


def _nested(config: Any, overrides: Mapping[str, Any], field: str, model: str) -> Any:
    if config is None:
        raise InvalidJob(Violation(field, f"{model} has no default for it to override."))
    return _overridden(config, overrides, field, model, _own_values(config))


def _own_values(config: Any) -> dict[str, Any]:
    """The fields of a nested configuration in which it is not the default of its class, without
    those that follow from the others."""
    derived = {field.name for field in dataclasses.fields(config) if field.default is None}
    own = {name: value for name, value in _changed(config, {}).items() if name not in derived}
    return own | _changed(config, own)


def _changed(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """What is otherwise in `config` than in a configuration of its class with these values."""
    made = type(config)(**values).to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if name not in _WRITTEN_BESIDES and (name not in made or made[name] != value)
    }


def _allowed(default: Any) -> dict[str, Any]:
    """Fields and what they take; a field without annotation takes what it is by default."""
    kinds = {
        name: Any if value is None or isinstance(value, (list, dict)) else type(value)
        for name, value in vars(default).items()
    }
    kinds |= {
        f.name: Any if isinstance(f.type, str) else f.type for f in dataclasses.fields(default)
    }
    kinds |= {alias: kinds.get(name, Any) for alias, name in default.attribute_map.items()}
    kinds |= _NOT_FIELDS
    if "rope_parameters" in kinds:
        kinds |= {"rope_theta": float, "rope_scaling": dict}
    return options.data_only(
        {n: kind for n, kind in kinds.items() if not n.startswith("_") and n not in _NO_OPTIONS}
    )
