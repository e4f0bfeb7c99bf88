"""Images beside text: what an image-and-text model of transformers is fed with.

An image stands in the text as a run of placeholder tokens, one for each vector that the vision part
makes of it; the model looks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memplan.types import DataType, InputTensor, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import (
    transformers_config,
    transformers_defaults,
    transformers_image_inputs,
)
from memplan_server.models.built import Stated
from memplan_server.models.images import float_type, spoken_shape
from memplan_server.models.transformers_values import ordinary_tokens

__all__ = ["TYPES", "Images", "describe", "text_row"]

TYPES = ("token_type_ids", "mm_token_type_ids")
"""Inputs that are 1 where an image's token is, else 0."""
_SAID = "each image stands in the text as a run of placeholder tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """The images of a sample."""

    inputs: tuple[InputTensor, ...]
    stated: Mapping[str, Stated]
    tokens: int
    """Placeholder tokens of each image."""
    count: int
    """Images of each sample."""
    assumption: str
    flattened: bool = True
    """Whether samples follow one another along the first dimension of the inputs."""

    @property
    def length(self) -> int:
        """Tokens that the images of a sample take, with one before each."""
        return self.count * (self.tokens + 1)


def describe(
    job: TrainingJob, module: nn.Module, parameters: list[str], given: InputTensor | None
) -> Images:
    """The images of each sample: of the shape `given`, or else of the model's default.

    Raises `InvalidJob` for a model that takes its images in another way.
    """
    count = max(1, job.assumptions.images_per_sample)
    _image_token(module.config)
    way = transformers_image_inputs.way(module, parameters)
    size = way.size(module.config)
    shape = given.shape if given is not None else size
    if len(shape) != 3:
        said = f"an image is CxHxW, such as {spoken_shape(size)}, not {spoken_shape(shape)}."
        raise InvalidJob(Violation("job.inputs", said))
    dtype = float_type(job) if given is None or _untyped(given) else given.dtype
    made = way.make(module, shape, count, dtype)
    assumed = f"{count} image(s) of {spoken_shape(shape)} in each sample, {made.tokens} tokens each"
    return Images(
        inputs=made.inputs,
        stated=made.stated,
        tokens=made.tokens,
        count=count,
        assumption=assumed,
        flattened=made.flattened,
    )


def text_row(module: nn.Module, images: Images, length: int) -> dict[str, Stated]:
    """The text of a sample with its images at the start, and where they are."""
    config: Any = module.config
    ordinary = ordinary_tokens(config)
    tokens = torch.full((length,), ordinary.start, device="cpu")
    where = torch.zeros(length, dtype=torch.int64, device="cpu")
    for index in range(images.count):
        start = index * (images.tokens + 1) + 1
        tokens[start : start + images.tokens] = _image_token(config)
        where[start : start + images.tokens] = 1
    types = {name: Stated(row=where, assumption=_SAID) for name in TYPES}
    return {"input_ids": Stated(row=tokens, assumption=_SAID, ordinary=ordinary), **types}


def _untyped(given: InputTensor) -> bool:
    return given.dtype is DataType.UNSPECIFIED


def _image_token(config: Any) -> int:
    null = []
    for each in transformers_config.configurations(config):
        for name in transformers_defaults.IMAGE_TOKENS:
            found = getattr(each, name, ...)
            if isinstance(found, int):
                return found
            null += [name] if found is None else []
    said = (
        "It has no placeholder token for images; models that put images in otherwise are left out."
    )
    if null:
        said = f"It has no placeholder token for images: {null[0]} is null. Give it in config."
    raise InvalidJob(Violation("job.model.catalog.task", said))
