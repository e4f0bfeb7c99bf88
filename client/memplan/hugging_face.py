"""A Hugging Face `config.json` as the model of a job.

    model = model_from_config("config.json")                    # or its content, or a configuration
    model = model_from_config(AutoConfig.for_model("llama"), task="causal-lm")
    model = model_from_config("unet/config.json")

The configuration travels as data; the server makes the model that its transformers has for the
`model_type`, or its diffusers for the `_class_name`. Labels travel as their number.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memplan.errors import JobFileError
from memplan.types import CatalogModel, Model

__all__ = ["model_from_config"]

_LARGEST_FILE = 4 << 20


def model_from_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | Any, *, task: str = "", **options: Any
) -> Model:
    """The model that a configuration describes.

    `config` is the path of a `config.json`, its content, or an object of transformers' with
    `to_dict()`. `task` names the head of a transformers model (default: that of its
    `architectures`); `options` replace fields of the configuration. Raises JobFileError for what is
    no configuration.
    """
    source = str(config) if isinstance(config, str | os.PathLike) else "the configuration"
    fields = {**_fields(config, source), **options}
    catalog = CatalogModel(name=_name(fields, source), config=_plain(fields), task=task)
    return Model(catalog=catalog)


def _name(fields: Mapping[str, Any], source: str) -> str:
    for library, key in (("transformers", "model_type"), ("diffusers", "_class_name")):
        named = fields.get(key)
        if isinstance(named, str) and named:
            return f"{library}/{named}"
    raise JobFileError(
        f"{source} is no configuration of a model: it has neither the model_type of transformers "
        "nor the _class_name of diffusers"
    )


def _fields(config: Any, source: str) -> Mapping[str, Any]:
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return config
    path = Path(config)
    if path.is_dir():
        path = path / "config.json"
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
        data = json.loads(text.decode("utf-8-sig")) if len(text) <= _LARGEST_FILE else None
    except OSError as error:
        raise JobFileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise JobFileError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise JobFileError(f"{source} is no configuration of a model: it has no fields")
    return data


def _plain(value: Any) -> Any:
    """The value as a Struct holds it: infinity in transformers' own way, labels as their number."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"}
    if not isinstance(value, Mapping):
        return value if value is None or isinstance(value, bool | int | float | str) else str(value)
    data = {str(key): _plain(item) for key, item in value.items() if key != "label2id"}
    labels = data.pop("id2label", None)
    if isinstance(labels, Mapping):
        data["num_labels"] = len(labels)
    return data
