"""diffusers' networks that remove noise: U-Nets and transformers, by their own configuration.

The name is that of the class, `diffusers/UNet2DConditionModel`; `config` has the fields of its
configuration that differ from the defaults, or is a whole `config.json` (it has a `_class_name`).
The loss is the mean squared error of what the network gives against the noise, as in diffusers' own
training scripts; what makes the noisy sample (text encoder, autoencoder) is not part of the job.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from memplan.types import CatalogModel, Loss, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import libraries, options
from memplan_server.models.built import BuiltModel
from memplan_server.models.construction import construction
from memplan_server.models.diffusers_inputs import INPUTS, PACKED, resolve

__all__ = ["build", "exists", "explain_missing", "list_models"]

FIELD = "job.model.catalog"

_EARLIER = "Transformer2DModel"
_PRESENT = {
    "ada_norm_zero": "DiTTransformer2DModel",
    "ada_norm_single": "PixArtTransformer2DModel",
}
"""What the class that some published configurations name is called now, by their `norm_type`."""
_TABLES = ("sample_size", "pos_embed_max_size")
_LARGEST_TABLE = 1024
"""Positions along a side, for which constructors compute a table."""
_LARGEST_REPEAT = 1000


def list_models() -> tuple[str, ...]:
    """Names of the classes, sorted."""
    return tuple(f"diffusers/{name}" for name in sorted([*INPUTS, _EARLIER]))


def exists(name: str) -> bool:
    """Whether the class `name` can be built from its configuration."""
    return f"diffusers/{name}" in list_models()


def explain_missing(model: CatalogModel, name: str) -> None:
    """Raise `InvalidJob` where more can be said than that there is no model `name`."""
    if name.endswith("Pipeline"):
        said = (
            f"{name} is a pipeline: give the config.json of the network that is trained, which is "
            "in its folder unet or transformer."
        )
        raise InvalidJob(Violation(f"{FIELD}.name", said))
    found = getattr(libraries.load("diffusers"), name, None)
    if isinstance(found, type) and issubclass(found, nn.Module):
        known = ", ".join(sorted(INPUTS))
        said = (
            f"The inputs of {name} do not follow from its configuration; those of {known} do. "
            "Capture the module with example inputs, and plan the capture."
        )
        raise InvalidJob(Violation(f"{FIELD}.name", said))


def build(job: TrainingJob, model: CatalogModel, name: str) -> BuiltModel:
    """The network of the class `name`. Raises `InvalidJob`."""
    name = _present(model, name)
    given, assumptions = _fields(model, name)
    with construction(f"{FIELD}.config" if model.config else f"{FIELD}.name"):
        wanted = list(INPUTS[name]({**_defaults(name), **given}))
        module: nn.Module = getattr(libraries.load("diffusers"), name)(**given)
    inputs, assumed = resolve(job, wanted, model.name)
    module.register_forward_pre_hook(_as_forward_takes_them, with_kwargs=True)
    return BuiltModel(
        module=module.train(),
        inputs=inputs,
        default_loss=Loss.MSE,
        assumptions=(*assumptions, *assumed),
    )


def _present(model: CatalogModel, name: str) -> str:
    if name != _EARLIER:
        return name
    norm = model.config.get("norm_type")
    if norm not in _PRESENT:
        said = f"must be one of {', '.join(_PRESENT)}, not {str(norm)[:60]!r}."
        raise InvalidJob(Violation(f"{FIELD}.config.norm_type", said))
    return _PRESENT[norm]


def _fields(model: CatalogModel, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The constructor's arguments, and what was left out of a whole file."""
    config, allowed = model.config, _allowed(name)
    if config.get("quantization_config"):
        said = "Quantised weights are not simulated. Leave it out to plan with the job's precision."
        raise InvalidJob(Violation(f"{FIELD}.config.quantization_config", said))
    assumptions: tuple[str, ...] = ()
    if "_class_name" in config:
        _check_class(config, model.name)
        plain = {key: value for key, value in config.items() if not key.startswith("_")}
        unknown = sorted(plain.keys() - allowed.keys())
        config = {key: value for key, value in plain.items() if key in allowed}
        if unknown:
            left = ", ".join(unknown[:10])
            assumptions = (f"fields that the class does not have are left out: {left}",)
    given = options.checked(config, allowed, f"{FIELD}.config", model.name)
    violations = [v for key, value in given.items() for v in _out_of_range(key, value)]
    if violations:
        raise InvalidJob(*violations)
    return given, assumptions


def _check_class(config: Mapping[str, Any], name: str) -> None:
    if f"diffusers/{config['_class_name']}" != name:
        said = f"is {str(config['_class_name'])[:60]!r}, and the model's name is {name}."
        raise InvalidJob(Violation(f"{FIELD}.config._class_name", f"{said} They must agree."))


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int):
        yield value


def _out_of_range(name: str, value: Any) -> list[Violation]:
    numbers = list(_numbers(value))
    most = _LARGEST_TABLE if name in _TABLES else _LARGEST_REPEAT
    limited = name in _TABLES or name.endswith("layers_per_block")
    if limited and not all(1 <= number <= most for number in numbers):
        return [Violation(f"{FIELD}.config.{name}", f"must be 1 to {most:,}.")]
    return []


@functools.cache
def _constructor(name: str) -> inspect.Signature:
    found = getattr(libraries.load("diffusers"), name)
    return inspect.signature(found.__init__, eval_str=True)


@functools.cache
def _allowed(name: str) -> Mapping[str, Any]:
    allowed = options.describable(_constructor(name))
    return {option: _as_meant(kind) for option, kind in allowed.items()}


@functools.cache
def _defaults(name: str) -> Mapping[str, Any]:
    return {key: parameter.default for key, parameter in _constructor(name).parameters.items()}


def _as_meant(kind: Any) -> Any:
    """diffusers writes `tuple[int]` for any number of them."""
    items = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and len(items) == 1:
        return types.GenericAlias(tuple, (_as_meant(items[0]), ...))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.Union[tuple(_as_meant(item) for item in items)]  # noqa: UP007
    return kind


def _as_forward_takes_them(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Some inputs come in a dictionary; position ids of a picture and its text are made."""
    packed = {name: kwargs[name] for name in PACKED if name in kwargs}
    kwargs = {name: value for name, value in kwargs.items() if name not in packed}
    if packed:
        kwargs["added_cond_kwargs"] = packed
    # Of a sharded model the class is one that is made from the model's own.
    if "FluxTransformer2DModel" in (c.__name__ for c in type(module).__mro__):
        for ids, tokens in (("img_ids", "hidden_states"), ("txt_ids", "encoder_hidden_states")):
            like = kwargs[tokens]
            kwargs[ids] = torch.zeros(like.shape[1], 3, device=like.device, dtype=like.dtype)
    return args, kwargs
