"""Images beside text: what an image-and-text model of transformers is fed with.

An image stands in the text as a run of placeholder tokens, one for each vector that the vision part
makes of it; the model looks for them. How many there are is found out by running the vision part
without data. Three ways of giving images are known:

- `pixel_values` [images, channels, height, width] (LLaVA, Gemma 3, InternVL, PaliGemma ...);
- `pixel_values` [samples, images, channels, height, width] (Idefics 2 and 3, SmolVLM);
- `pixel_values` [patches, values of a patch] and `image_grid_thw` [images, 3], the patches of each
  image in time, height and width (Qwen2-VL and what follows it).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memplan.fakes import hardware
from memplan.fakes.modes import Mode
from memplan.types import DataType, InputTensor, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import transformers_config
from memplan_server.models.built import Stated
from memplan_server.models.construction import first_line
from memplan_server.models.images import float_type, spoken_shape
from memplan_server.models.transformers_values import ordinary_tokens

__all__ = ["GRID", "TYPES", "Images", "default_size", "describe", "text_row"]

GRID = "image_grid_thw"
_GRID_SIZE = 448
TYPES = ("token_type_ids", "mm_token_type_ids")
"""Inputs that are 1 where an image's token is, else 0."""
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_SAID = "each image stands in the text as a run of placeholder tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """The images of a sample."""

    inputs: tuple[InputTensor, ...]
    stated: dict[str, Stated]
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
    job: TrainingJob, module: nn.Module, parameters: list[str], given: InputTensor | None, size: Any
) -> Images:
    """The images of each sample: of the shape `given`, or else of the default shape `size`.

    Raises `InvalidJob` for a model that takes its images in another way.
    """
    shape = given.shape if given is not None else size
    if len(shape) != 3:
        said = f"an image is CxHxW, such as {spoken_shape(size)}, not {spoken_shape(shape)}."
        raise InvalidJob(Violation("job.inputs", said))
    count = max(1, job.assumptions.images_per_sample)
    dtype = float_type(job) if given is None or _untyped(given) else given.dtype
    make = _patches if GRID in parameters else _pixels
    inputs, stated, tokens, flattened = make(module, shape, count, dtype)
    assumed = f"{count} image(s) of {spoken_shape(shape)} in each sample, {tokens} tokens each"
    return Images(
        inputs=inputs,
        stated=stated,
        tokens=tokens,
        count=count,
        assumption=assumed,
        flattened=flattened,
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
    for each in transformers_config.configurations(config):
        for name in ("image_token_id", "image_token_index", "im_end_token_id"):
            found = getattr(each, name, None)
            if isinstance(found, int):
                return found
    said = (
        "It has no placeholder token for images; models that put images in otherwise are left out."
    )
    raise InvalidJob(Violation("job.model.catalog.task", said))


def _pixels(module: nn.Module, shape: Any, count: int, dtype: DataType) -> Any:
    _image_token(module.config)
    pixels = InputTensor(name="pixel_values", shape=(count, *shape), dtype=dtype)
    tokens, flattened = _vectors(module, shape)
    return (pixels,), {}, tokens, flattened


def _patches(module: nn.Module, shape: Any, count: int, dtype: DataType) -> Any:
    vision: Any = module.config.vision_config  # type: ignore[union-attr]
    size, merged = int(vision.patch_size), int(getattr(vision, "spatial_merge_size", 1))
    channels, height, width = shape
    if height % (size * merged) or width % (size * merged):
        said = f"height and width are multiples of {size * merged}, not {spoken_shape(shape)}."
        raise InvalidJob(Violation("job.inputs", said))
    rows, columns = height // size, width // size
    values = channels * int(getattr(vision, "temporal_patch_size", 1)) * size**2
    grid = torch.tensor([[1, rows, columns]] * count, device="cpu")
    said = f"images have {rows}x{columns} patches"
    inputs = (
        InputTensor(name="pixel_values", shape=(count * rows * columns, values), dtype=dtype),
        InputTensor(name=GRID, shape=(count, 3), dtype=DataType.INT64),
    )
    return inputs, {GRID: Stated(row=grid, assumption=said)}, rows * columns // merged**2, True


def default_size(config: Any) -> tuple[int, int, int]:
    """The default image of a model that cuts images into patches itself."""
    return (int(getattr(config, "in_channels", 3) or 3), _GRID_SIZE, _GRID_SIZE)


def _vectors(module: nn.Module, shape: Any) -> tuple[int, bool]:
    """How many vectors the vision part makes of an image, and whether it takes images one after
    another whichever sample they belong to."""
    features = getattr(module, "get_image_features", None)
    if features is None:
        said = "What an image turns into is not known; the model is left out."
        raise InvalidJob(Violation("job.model.catalog.task", said))
    _refuse_further(features)
    try:
        return _count(features, (1, *shape), module), True
    except Exception as error:
        try:
            return _count(features, (1, 1, *shape), module), False
        except Exception as other:
            said = (
                f"What an image of {spoken_shape(shape)} turns into cannot be found out: "
                f"{first_line(error)}; or {first_line(other)}"
            )
            raise InvalidJob(Violation("job.model.catalog.task", said)) from other


def _unsaid(sentence: str) -> None:
    """The count depends on shapes alone; the execution states what it assumes."""


def _refuse_further(features: Callable[..., Any]) -> None:
    """Images must be described by their pixels alone."""
    wanted = [
        name
        for name, parameter in inspect.signature(features).parameters.items()
        if parameter.default is parameter.empty and parameter.kind in _NAMED
    ]
    if wanted != ["pixel_values"]:
        further = ", ".join(name for name in wanted if name != "pixel_values")
        said = (
            f"It describes an image by more than its pixels ({further}); such models are left out. "
            "Capture the module with its inputs, and plan the capture."
        )
        raise InvalidJob(Violation("job.model.catalog.task", said))


def _count(features: Callable[..., Any], shape: tuple[int, ...], module: nn.Module) -> int:
    device = next(module.parameters()).device
    mode = Mode(_unsaid, decides=True, allow_non_fake_inputs=True)
    with mode, torch.no_grad(), hardware.as_on_hardware():
        made = features(pixel_values=torch.empty(shape, device=device))
    width = module.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    return sum(tensor.numel() for tensor in _tensors(made)) // int(width)


def _tensors(made: Any) -> Iterator[torch.Tensor]:
    made = getattr(made, "pooler_output", made)
    if isinstance(made, torch.Tensor):
        yield made
    elif isinstance(made, (list, tuple)):
        for item in made:
            yield from _tensors(item)
