"""Images beside text: what an image-and-text model of transformers is fed with.

An image stands in the text as a run of placeholder tokens, one for each vector that the vision part
makes of it; the model looks for them. How many there are is found out by running the vision part
without data. These ways of giving images are known:

- `pixel_values` [images, channels, height, width] (LLaVA, Gemma 3, InternVL, PaliGemma ...);
- `pixel_values` [samples, images, channels, height, width] (Idefics 2 and 3, SmolVLM);
- `pixel_values` [patches, values of a patch] and `image_grid_thw` [images, 3], the patches of each
  image in time, height and width (Qwen2-VL and what follows it);
- `pixel_values` [images, tiles, channels, height, width] and `image_sizes` [images, 2]: an overview
  and tiles of the image, as many as its size needs (LLaVA-NeXT, LLaVA-OneVision);
- `pixel_values` [images, channels, height, width] and `image_sizes` [images, 2]: each image in its
  own size (Mistral 3, Pixtral).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from memplan.types import DataType, InputTensor, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import (
    transformers_config,
    transformers_defaults,
    transformers_vision,
)
from memplan_server.models.built import Stated
from memplan_server.models.images import float_type, spoken_shape
from memplan_server.models.transformers_values import ordinary_tokens

__all__ = ["TYPES", "Images", "describe", "text_row"]

GRID = "image_grid_thw"
SIZES = "image_sizes"
_TILINGS = "image_grid_pinpoints"
"""The field of a configuration with the sizes that images are brought to and cut from."""
_MERGED = ("spatial_merge_size", "merge_size", "merge_kernel_size")
"""Fields with how many patches along a side become one vector."""
_FRAMES = ("temporal_patch_size", "patch_temporal")
"""Fields with how many frames are in a patch."""
_COUNTS = "batch_num_images"
"""Images of each sample, for models that cut an image only where it is alone."""
_FREE_SIDE = 448
"""Of the default image of models that take any size."""
TYPES = ("token_type_ids", "mm_token_type_ids")
"""Inputs that are 1 where an image's token is, else 0."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """As the fields of `Images` with these names."""

    inputs: tuple[InputTensor, ...]
    tokens: int
    stated: dict[str, Stated] = field(default_factory=dict)
    flattened: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """A way of giving images."""

    size: Callable[[Any], tuple[int, ...]]
    """The default image by configuration: channels, height, width."""
    make: Callable[[nn.Module, Any, int, DataType], _Made]
    """From an image's shape, how many each sample has and the type of its numbers."""


def describe(
    job: TrainingJob, module: nn.Module, parameters: list[str], given: InputTensor | None
) -> Images:
    """The images of each sample: of the shape `given`, or else of the model's default.

    Raises `InvalidJob` for a model that takes its images in another way.
    """
    count = max(1, job.assumptions.images_per_sample)
    way = _way(module, parameters)
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
    for each in transformers_config.configurations(config):
        for name in ("image_token_id", "image_token_index", "im_end_token_id"):
            found = getattr(each, name, None)
            if isinstance(found, int):
                return found
    said = (
        "It has no placeholder token for images; models that put images in otherwise are left out."
    )
    raise InvalidJob(Violation("job.model.catalog.task", said))


def _way(module: nn.Module, parameters: list[str]) -> _Way:
    """How the model takes its images. Raises `InvalidJob` where that is not known."""
    if GRID in parameters:
        return _Way(size=_any_size, make=_patches)
    _image_token(module.config)
    further = transformers_vision.further(module)
    if further == (SIZES,):
        tiled = hasattr(module.config, _TILINGS)
        return _Way(size=_four_tiles, make=_tiles) if tiled else _Way(size=_any_size, make=_sized)
    if further:
        said = (
            f"It describes an image by more than its pixels ({', '.join(further)}); such models "
            "are left out. Capture the module with its inputs, and plan the capture."
        )
        raise InvalidJob(Violation("job.model.catalog.task", said))
    return _Way(size=transformers_defaults.image_shape, make=_pixels)


def _pixels(module: nn.Module, shape: Any, count: int, dtype: DataType) -> _Made:
    pixels = InputTensor(name="pixel_values", shape=(count, *shape), dtype=dtype)
    tokens, flattened = transformers_vision.of_pixels(module, shape)
    return _Made(inputs=(pixels,), tokens=tokens, flattened=flattened)


def _patches(module: nn.Module, shape: Any, count: int, dtype: DataType) -> _Made:
    vision: Any = module.config.vision_config  # type: ignore[union-attr]
    size, merged = int(vision.patch_size), _named(vision, _MERGED)
    _check_multiple(shape, size * merged)
    channels, height, width = shape
    rows, columns = height // size, width // size
    values = channels * _named(vision, _FRAMES) * size**2
    grid = torch.tensor([[1, rows, columns]] * count, device="cpu")
    said = f"images have {rows}x{columns} patches"
    inputs = (
        InputTensor(name="pixel_values", shape=(count * rows * columns, values), dtype=dtype),
        InputTensor(name=GRID, shape=(count, 3), dtype=DataType.INT64),
    )
    stated = {GRID: Stated(row=grid, assumption=said)}
    return _Made(inputs=inputs, stated=stated, tokens=rows * columns // merged**2)


def _named(vision: Any, names: tuple[str, ...]) -> int:
    """The field of one of these names; of a pair of numbers, the first; 1 where there is none."""
    found = next((value for name in names if (value := getattr(vision, name, None))), 1)
    return int(found[0] if isinstance(found, (list, tuple)) else found)


def _tiles(module: nn.Module, shape: Any, count: int, dtype: DataType) -> _Made:
    config: Any = module.config
    channels, *size = shape
    side = int(config.vision_config.image_size)
    whole = count > 1 and transformers_vision.takes(module, _COUNTS)
    utils = importlib.import_module("transformers.image_processing_utils")
    height, width = utils.select_best_resolution(size, getattr(config, _TILINGS))
    tiles = 1 if whole else 1 + -(-height // side) * -(-width // side)
    pixels = InputTensor(
        name="pixel_values", shape=(count, tiles, channels, side, side), dtype=dtype
    )
    said = f"images become {tiles} tile(s) of {side}x{side}, the overview among them"
    counts = {_COUNTS: Stated(row=torch.tensor([count], device="cpu"), assumption=said)}
    return _with_sizes(module, pixels, size, said, counts if whole else {})


def _sized(module: nn.Module, shape: Any, count: int, dtype: DataType) -> _Made:
    config: Any = module.config
    merged = int(getattr(config, "spatial_merge_size", 1))
    _check_multiple(shape, int(config.vision_config.patch_size) * merged)
    pixels = InputTensor(name="pixel_values", shape=(count, *shape), dtype=dtype)
    said = "images keep their size, none is padded"
    return _with_sizes(module, pixels, shape[1:], said, {})


def _with_sizes(
    module: nn.Module, pixels: InputTensor, size: Any, said: str, further: Mapping[str, Stated]
) -> _Made:
    """Images with the height and width that each has."""
    count = pixels.shape[0]
    sizes = torch.tensor([[*size]] * count, device="cpu")
    stated = {SIZES: Stated(row=sizes, assumption=said), **further}
    described = (
        InputTensor(name=name, shape=tuple(value.row.shape), dtype=DataType.INT64)
        for name, value in stated.items()
    )
    inputs = (pixels, *described)
    tokens = transformers_vision.of_described(module, inputs, stated) // count
    return _Made(inputs=inputs, stated=stated, tokens=tokens)


def _check_multiple(shape: Any, multiple: int) -> None:
    if any(side % multiple for side in shape[1:]):
        said = f"height and width are multiples of {multiple}, not {spoken_shape(shape)}."
        raise InvalidJob(Violation("job.inputs", said))


def _any_size(config: Any) -> tuple[int, ...]:
    """The default image of a model that takes all sizes."""
    return (int(getattr(config, "in_channels", 3) or 3), _FREE_SIDE, _FREE_SIDE)


def _four_tiles(config: Any) -> tuple[int, ...]:
    """As most photographs become."""
    channels, height, width = transformers_defaults.image_shape(config)
    return (channels, 2 * height, 2 * width)
