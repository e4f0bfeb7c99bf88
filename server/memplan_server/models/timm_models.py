"""timm's models, with the input size of their pretrained configuration.

Options in `config` are those of the model's class that data can describe (`num_classes`,
`in_chans`, `drop_path_rate` ...). A name may carry the tag of a pretrained configuration
(`timm/vit_base_patch16_224.augreg_in21k`), whose input size and number of classes are then used.
For an input of another size the model is made with `img_size`, where its class has it. With
`fused_attn: false` attention is written out, as before PyTorch had a fused operator. A name that
timm has given up for another (`timm/tv_resnet152`) means the model by its present name, and the
answer says so.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from memplan.types import CatalogModel, TrainingJob
from memplan_server.models import images, libraries, options
from memplan_server.models.built import BuiltModel
from memplan_server.models.construction import construction

__all__ = ["build", "exists", "list_models"]

FIELD = "job.model.catalog"

_NO_OPTIONS = frozenset({"weight_init", "fix_init", "device", "dtype"})
"""Parameters about the values and the place of weights, which a simulation has no use for."""


@functools.cache
def list_models() -> tuple[str, ...]:
    """Names of the models, `timm/resnet50`, sorted; those with a tag are left out."""
    return tuple(f"timm/{name}" for name in sorted(libraries.load("timm").list_models()))


def exists(name: str) -> bool:
    """Whether `timm/name` is a model, with a tag or without, or an earlier name of one."""
    return f"timm/{name}" in list_models() or name in _tagged() or name in _renamed()


@functools.cache
def _tagged() -> frozenset[str]:
    return frozenset(libraries.load("timm").list_pretrained())


@functools.cache
def _renamed() -> Mapping[str, str]:
    """The present name, most often with a tag, of each model under its earlier names."""
    deprecated = libraries.load("timm").models.get_deprecated_models()
    return {
        earlier: _without_lost_tag(present) for earlier, present in deprecated.items() if present
    }


def _without_lost_tag(name: str) -> str:
    """Some earlier names stand for weights that timm no longer has."""
    return name if name in _tagged() else name.partition(".")[0]


def build(job: TrainingJob, model: CatalogModel, name: str) -> BuiltModel:
    """The model called `name`, now or earlier. Raises `InvalidJob`."""
    present = _renamed().get(name, name)
    built = _build(job, model, present)
    if present == name:
        return built
    said = f"{model.name} is timm/{present}, the name that timm gives it now"
    return replace(built, assumptions=(said, *built.assumptions))


def _build(job: TrainingJob, model: CatalogModel, name: str) -> BuiltModel:
    allowed = _allowed(name) | {"fused_attn": bool}
    given = options.checked(model.config, allowed, f"{FIELD}.config", model.name)
    channels, *size = libraries.load("timm").get_pretrained_cfg(name).input_size
    wanted = images.Wanted(
        model=model.name,
        shape=(given.get("in_chans", channels), *_size(given.get("img_size"), size)),
        remedy="Set config.in_chans to make it for another number.",
    )
    image, assumptions = images.resolve(job, wanted)
    if "img_size" in allowed and "img_size" not in given and image.shape[1:] != wanted.shape[1:]:
        given["img_size"] = _img_size(image.shape[1:], allowed["img_size"])
    fused = given.pop("fused_attn", True)
    with construction(_field(job, model)), _attention(fused=fused):
        module: nn.Module = libraries.load("timm").create_model(name, pretrained=False, **given)
    return BuiltModel(module=module.train(), inputs=(image,), assumptions=assumptions)


@contextlib.contextmanager
def _attention(*, fused: bool) -> Iterator[None]:
    """timm asks this setting when it makes an attention layer."""
    layers = libraries.load("timm").layers
    before = layers.use_fused_attn()
    layers.set_fused_attn(fused and before)
    try:
        yield
    finally:
        layers.set_fused_attn(before)


def _allowed(name: str) -> dict[str, Any]:
    constructor = inspect.signature(_class(name).__init__, eval_str=True)
    allowed = options.describable(constructor)
    return {option: kind for option, kind in allowed.items() if option not in _NO_OPTIONS}


@functools.cache
def _class(name: str) -> type[nn.Module]:
    """The model's class: what its entry point is annotated with, else what it makes."""
    models = libraries.load("timm").models
    entrypoint: Callable[..., nn.Module] = models.model_entrypoint(name.partition(".")[0])
    annotated = typing.get_type_hints(entrypoint).get("return")
    if isinstance(annotated, type):
        return annotated
    with construction(f"{FIELD}.name"):
        return type(entrypoint(pretrained=False))


def _size(given: Any, default: list[int]) -> tuple[int, ...]:
    """Height and width from `img_size`, one number or two."""
    if given is None:
        return tuple(default)
    return (given, given) if isinstance(given, int) else tuple(given)


def _img_size(height_width: tuple[int, ...], kind: Any) -> Any:
    """As the class takes it: two numbers, or one for a square where it takes no two."""
    square = len(set(height_width)) == 1
    return height_width[0] if square and kind is int else height_width


def _field(job: TrainingJob, model: CatalogModel) -> str:
    """The part of the request that a failing constructor is about."""
    if model.config:
        return f"{FIELD}.config"
    return "job.inputs[0].shape" if job.inputs else f"{FIELD}.name"
