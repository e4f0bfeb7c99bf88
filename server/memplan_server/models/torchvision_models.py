"""torchvision's models. Those for detection are built in `torchvision_detection`.

Options in `config` are those of the model's class that data can describe (`num_classes`,
`dropout`, `groups` ...) and of its builder (`aux_loss` of segmentation models). Models whose
position tables or windows have a fixed size are made for the input given.

Known limitations: optical flow and quantized models are left out.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from memplan.types import CatalogModel, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import images, libraries, options, torchvision_detection
from memplan_server.models.built import BuiltModel
from memplan_server.models.construction import construction

__all__ = ["build", "exists", "list_models"]

Builder = Callable[..., nn.Module]

FIELD = "job.model.catalog"

_NO_OPTIONS = frozenset({"weights", "weights_backbone", "progress", "init_weights"})
"""Parameters about the values of weights, which a simulation has no use for."""

_SIZED_BY_INPUT: Mapping[str, str] = {
    "VisionTransformer": "image_size",
    "MaxVit": "input_size",
}
"""The option of a class that must agree with the input's height and width."""

_AUXILIARY = "auxiliary outputs count in the loss as the main output does"


_DEFAULT_SHAPES: Mapping[str, tuple[int, ...]] = {
    "torchvision.models": (3, 224, 224),
    "torchvision.models.segmentation": (3, 520, 520),
    "torchvision.models.video": (3, 16, 224, 224),
}
"""By the package of the builder; height and width are replaced by what the model's published
weights were trained with, where they say."""

_FIXED_DEFAULT = ("VisionTransformer",)
"""Classes whose constructor has a default input size of its own (224)."""


@functools.cache
def list_models() -> tuple[str, ...]:
    """Names of the models, `torchvision/resnet50`, sorted."""
    models = libraries.load("torchvision").models
    families = (models, models.detection, models.segmentation, models.video)
    names = sorted(name for family in families for name in models.list_models(family))
    return tuple(f"torchvision/{name}" for name in names)


def exists(name: str) -> bool:
    """Whether there is a model `torchvision/name`."""
    return f"torchvision/{name}" in list_models()


def build(job: TrainingJob, model: CatalogModel, name: str) -> BuiltModel:
    """The model called `name`. Raises `InvalidJob`."""
    builder = libraries.load("torchvision").models.get_model_builder(name)
    if _package(builder) == torchvision_detection.PACKAGE:
        return torchvision_detection.build(job, model, builder)
    given = options.checked(model.config, _allowed(builder), f"{FIELD}.config", model.name)
    shape = _default_shape(name, builder, given)
    image, assumptions = images.resolve(job, _wanted(model.name, shape))
    sized = {**_sized(builder, image.shape), **given}
    _agree(builder, sized, image.shape, model.name)
    field = f"{FIELD}.config" if model.config else f"{FIELD}.name"
    with construction(field):
        module: nn.Module = builder(**_without_weights(builder), **sized)
    if _has_auxiliary(module):
        assumptions = (*assumptions, _AUXILIARY)
    return BuiltModel(module=module.train(), inputs=(image,), assumptions=assumptions)


def _wanted(model: str, shape: tuple[int, ...]) -> images.Wanted:
    remedy = "torchvision's models take RGB images; timm's take any number with config.in_chans."
    return images.Wanted(model=model, shape=shape, remedy=remedy)


def _package(builder: Builder) -> str:
    return builder.__module__.rpartition(".")[0]


def _class(builder: Builder) -> type[nn.Module]:
    made: type[nn.Module] = inspect.signature(builder, eval_str=True).return_annotation
    return made


def _allowed(builder: Builder) -> dict[str, Any]:
    """Options of the builder and of its class."""
    constructor = inspect.signature(_class(builder).__init__, eval_str=True)
    allowed = options.describable(constructor)
    allowed |= options.describable(inspect.signature(builder, eval_str=True))
    sized = _SIZED_BY_INPUT.get(_class(builder).__name__)
    if sized is not None:
        allowed[sized] = constructor.parameters[sized].annotation
    return {name: kind for name, kind in allowed.items() if name not in _NO_OPTIONS}


def _default_shape(name: str, builder: Builder, given: Mapping[str, Any]) -> tuple[int, ...]:
    default = _DEFAULT_SHAPES[_package(builder)]
    made = _class(builder).__name__
    size = given.get(_SIZED_BY_INPUT.get(made, ""))
    if size is None and made not in _FIXED_DEFAULT:
        weights = libraries.load("torchvision").models.get_model_weights(name).DEFAULT
        size = weights.transforms.keywords.get("crop_size")
    if size is None:
        return default
    height_width = (size, size) if isinstance(size, int) else tuple(size)
    return (*default[:-2], *height_width)


def _sized(builder: Builder, shape: tuple[int, ...]) -> dict[str, Any]:
    """The option that must agree with the input, made to."""
    option = _SIZED_BY_INPUT.get(_class(builder).__name__)
    if option is None:
        return {}
    return {option: shape[-1] if option == "image_size" else shape[-2:]}


def _agree(builder: Builder, given: Mapping[str, Any], shape: tuple[int, ...], model: str) -> None:
    option = _SIZED_BY_INPUT.get(_class(builder).__name__)
    if option is None:
        return
    size = given[option]
    height_width = (size, size) if isinstance(size, int) else tuple(size)
    if height_width != shape[-2:]:
        shown, wanted = images.spoken_shape(shape), images.spoken_shape(height_width)
        said = f"{shown} does not agree with {wanted}, for which {model} is made by {option}."
        raise InvalidJob(Violation("job.inputs[0].shape", said))


def _without_weights(builder: Builder) -> dict[str, Any]:
    fixed: dict[str, Any] = {"weights": None, "progress": False}
    if "weights_backbone" in inspect.signature(builder).parameters:
        fixed["weights_backbone"] = None
    if "init_weights" in inspect.signature(_class(builder).__init__).parameters:
        fixed["init_weights"] = False
    return fixed


def _has_auxiliary(module: nn.Module) -> bool:
    """Whether the model in train mode has outputs beside the main one."""
    return any(
        getattr(module, name, None) is not None for name in ("aux1", "AuxLogits", "aux_classifier")
    )
