"""How many vectors the vision part of an image-and-text model makes of an image.

    tokens, flattened = of_pixels(module, (3, 224, 224))

It is executed without data: what comes out has a shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from memplan.fakes import hardware
from memplan.fakes.modes import Mode
from memplan.types import InputTensor
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models.built import Stated
from memplan_server.models.explained import explain, progress
from memplan_server.models.images import spoken_shape
from memplan_server.models.readable import Constants, with_value

__all__ = ["further", "of_described", "of_pixels", "takes"]

FIELD = "job.model.catalog.task"
_REMEDY = "Give pixel_values of the shape that it takes, or a vision_config that fits in config."
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def further(module: nn.Module) -> tuple[str, ...]:
    """Inputs that the vision part needs beside `pixel_values`."""
    parameters = inspect.signature(_features(module)).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _NAMED]
    return tuple(name for name in needed if name != "pixel_values")


def takes(module: nn.Module, name: str) -> bool:
    """Whether the vision part has an input of this name."""
    return name in inspect.signature(_features(module)).parameters


def of_pixels(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, bool]:
    """How many vectors become of an image described by its pixels, and whether images are taken
    one after another whichever sample they belong to. Raises `InvalidJob`."""
    try:
        return _count(module, (1, *shape), {}), True
    except Exception as error:
        try:
            return _count(module, (1, 1, *shape), {}), False
        except Exception as other:
            further = max(error, other, key=progress)  # it had the right number of dimensions
            raise _unknown(shape, further) from further


def of_described(
    module: nn.Module, inputs: Iterable[InputTensor], stated: Mapping[str, Stated]
) -> int:
    """How many vectors become of the images of a sample, which more than pixels describe.

    Raises `InvalidJob`.
    """
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    pixels = shapes.pop("pixel_values")
    try:
        return _count(module, pixels, {name: stated[name].row for name in shapes})
    except Exception as error:
        raise _unknown(pixels, error) from error


def _features(module: nn.Module) -> Callable[..., Any]:
    holders = (module, getattr(module, "base_model", None))
    found = (getattr(holder, "get_image_features", None) for holder in holders)
    features: Any = next(filter(None, found), None)
    if features is None:
        raise InvalidJob(
            Violation(FIELD, "What an image turns into is not known; the model is left out.")
        )
    made: Callable[..., Any] = features
    return made


def _unknown(shape: tuple[int, ...], error: Exception) -> InvalidJob:
    said = f"What an image of {spoken_shape(shape)} turns into cannot be found out: "
    return InvalidJob(Violation(FIELD, said + explain(error, _REMEDY)))


def _unsaid(sentence: str) -> None:
    """The count depends on shapes alone; the execution states what it assumes."""


def _count(module: nn.Module, shape: tuple[int, ...], described: Mapping[str, torch.Tensor]) -> int:
    device = next(module.parameters()).device
    mode = Mode(_unsaid, decides=True, allow_non_fake_inputs=True)
    with mode, Constants(), torch.no_grad(), hardware.as_on_hardware():
        values = {name: with_value(value, device) for name, value in described.items()}
        made = _features(module)(pixel_values=torch.empty(shape, device=device), **values)
    width = module.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    vectors = sum(tensor.numel() for tensor in _tensors(made)) // int(width)
    if not vectors:
        raise ValueError(f"{type(made).__name__} has no vectors of {width}")
    return vectors


def _tensors(made: Any) -> Iterator[torch.Tensor]:
    made = getattr(made, "pooler_output", made)
    if isinstance(made, torch.Tensor):
        yield made
    elif isinstance(made, (list, tuple)):
        for item in made:
            yield from _tensors(item)
