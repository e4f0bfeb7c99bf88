"""The inputs by which an image-and-text model of transformers takes images.

    known = way(module, parameters)
    made = known.make(module, (3, 448, 448), 1, DataType.FLOAT32)

How many vectors become of an image is found out by running the vision part without data. These ways
of giving images are known:

- `pixel_values` [images, channels, height, width] (LLaVA, Gemma 3, InternVL, PaliGemma ...);
- `pixel_values` [samples, images, channels, height, width] (Idefics 2 and 3, SmolVLM);
- `pixel_values` [patches, values of a patch], or with the values as [channels, height, width], and
  `image_grid_thw` [images, 3], the patches of each image in time, height and width (Qwen2-VL and
  what follows it);
- `pixel_values` [images, tiles, channels, height, width] and `image_sizes` [images, 2]: an overview
  and tiles of the image, as many as its size needs (LLaVA-NeXT, LLaVA-OneVision);
- `pixel_values` [images, channels, height, width] and `image_sizes` [images, 2]: each image in its
  own size (Mistral 3, Pixtral);
- `pixel_values` [images, patches, values of a patch], `spatial_shapes` [images, 2] and
  `pixel_attention_mask` [images, patches] (LFM2-VL).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from memplan.types import DataType, InputTensor
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import transformers_defaults, transformers_vision
from memplan_server.models.built import Stated
from memplan_server.models.images import spoken_shape

__all__ = ["Made", "Way", "way"]

_GRID = "image_grid_thw"
_SIZES = "image_sizes"
_SHAPES, _MASK = "spatial_shapes", "pixel_attention_mask"
_TILINGS = "image_grid_pinpoints"
"""The field of a configuration with the sizes that images are brought to and cut from."""
_MERGED = ("spatial_merge_size", "merge_size", "merge_kernel_size", "downsample_factor")
"""Fields with how many patches along a side become one vector."""
_FRAMES = ("temporal_patch_size", "patch_temporal")
"""Fields with how many frames are in a patch."""
_COUNTS = "batch_num_images"
"""Images of each sample, for models that cut an image only where it is alone."""
_FREE_SIDE = 448
"""Of the default image of models that take any size: this, or the next that they take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """The images of a sample."""

    inputs: tuple[InputTensor, ...]
    tokens: int
    """Vectors that become of each image."""
    stated: Mapping[str, Stated] = field(default_factory=dict)
    flattened: bool = True
    """Whether samples follow one another along the first dimension of the inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way of giving images."""

    size: Callable[[Any], tuple[int, ...]]
    """The default image by configuration: channels, height, width."""
    make: Callable[[nn.Module, Any, int, DataType], Made]
    """From an image's shape, how many each sample has and the type of its numbers."""


def way(module: nn.Module, parameters: list[str]) -> Way:
    """How the model takes its images. Raises `InvalidJob` where that is not known."""
    if _GRID in parameters:
        return Way(size=_any_size, make=_patches)
    further = transformers_vision.further(module)
    if further == (_SIZES,):
        tiled = hasattr(module.config, _TILINGS)
        return Way(size=_four_tiles, make=_tiles) if tiled else Way(size=_any_size, make=_sized)
    if further == (_SHAPES, _MASK):
        return Way(size=_any_size, make=_spots)
    if further:
        said = (
            f"It describes an image by more than its pixels ({', '.join(further)}); such models "
            "are left out. Capture the module with its inputs, and plan the capture."
        )
        raise InvalidJob(Violation("job.model.catalog.task", said))
    return Way(size=transformers_defaults.image_shape, make=_pixels)


def _pixels(module: nn.Module, shape: Any, count: int, dtype: DataType) -> Made:
    pixels = InputTensor(name="pixel_values", shape=(count, *shape), dtype=dtype)
    tokens, flattened = transformers_vision.of_pixels(module, shape)
    return Made(inputs=(pixels,), tokens=tokens, flattened=flattened)


def _patches(module: nn.Module, shape: Any, count: int, dtype: DataType) -> Made:
    """Values of a patch in a row, or else as a small image."""
    config: Any = module.config
    size = _check_multiple(config, shape)
    channels, rows, columns = shape[0], shape[1] // size, shape[2] // size
    values = (channels * _named(config, _FRAMES) * size**2,)
    grid = torch.tensor([[1, rows, columns]] * count, device="cpu")
    stated = {_GRID: Stated(row=grid, assumption=f"images have {rows}x{columns} patches")}
    row = InputTensor(name="pixel_values", shape=(count * rows * columns, *values), dtype=dtype)
    image = replace(row, shape=(count * rows * columns, channels, size, size))
    for pixels in (row, image):
        try:
            return _described(module, pixels, stated, count)
        except InvalidJob:
            continue
    tokens = rows * columns // _named(config, _MERGED) ** 2
    return Made(inputs=(row, *_of(stated)), stated=stated, tokens=tokens)


def _tiles(module: nn.Module, shape: Any, count: int, dtype: DataType) -> Made:
    config: Any = module.config
    channels, *size = shape
    side = int(config.vision_config.image_size)
    whole = count > 1 and transformers_vision.takes(module, _COUNTS)
    utils = importlib.import_module("transformers.image_processing_utils")
    height, width = utils.select_best_resolution(size, getattr(config, _TILINGS))
    tiles = 1 if whole else 1 + -(-height // side) * -(-width // side)
    first = (count, tiles, channels, side, side)
    pixels = InputTensor(name="pixel_values", shape=first, dtype=dtype)
    said = f"images become {tiles} tile(s) of {side}x{side}, the overview among them"
    stated = {_SIZES: Stated(row=_repeated(size, count), assumption=said)}
    if whole:
        stated[_COUNTS] = Stated(row=torch.tensor([count], device="cpu"), assumption=said)
    return _described(module, pixels, stated, count)


def _sized(module: nn.Module, shape: Any, count: int, dtype: DataType) -> Made:
    _check_multiple(module.config, shape)
    pixels = InputTensor(name="pixel_values", shape=(count, *shape), dtype=dtype)
    said = "images keep their size, none is padded"
    stated = {_SIZES: Stated(row=_repeated(shape[1:], count), assumption=said)}
    return _described(module, pixels, stated, count)


def _spots(module: nn.Module, shape: Any, count: int, dtype: DataType) -> Made:
    """Patches of each image apart."""
    size = _check_multiple(module.config, shape)
    rows, columns = shape[1] // size, shape[2] // size
    first = (count, rows * columns, shape[0] * size**2)
    pixels = InputTensor(name="pixel_values", shape=first, dtype=dtype)
    said = f"images have {rows}x{columns} patches, none is padded"
    ones = torch.ones((count, rows * columns), dtype=torch.int64, device="cpu")
    stated = {
        _SHAPES: Stated(row=_repeated((rows, columns), count), assumption=said),
        _MASK: Stated(row=ones, assumption=said),
    }
    return _described(module, pixels, stated, count)


def _described(
    module: nn.Module, pixels: InputTensor, stated: Mapping[str, Stated], count: int
) -> Made:
    """Images that what is stated describes. Raises `InvalidJob`."""
    inputs = (pixels, *_of(stated))
    tokens = transformers_vision.of_described(module, inputs, stated) // count
    return Made(inputs=inputs, stated=stated, tokens=tokens)


def _of(stated: Mapping[str, Stated]) -> list[InputTensor]:
    return [
        InputTensor(name=name, shape=tuple(value.row.shape), dtype=DataType.INT64)
        for name, value in stated.items()
    ]


def _repeated(numbers: Any, count: int) -> torch.Tensor:
    """These numbers for each image."""
    return torch.tensor([[*numbers]] * count, device="cpu")


def _check_multiple(config: Any, shape: Any) -> int:
    """The side of a patch, where whole vectors become of an image of this shape."""
    multiple = _multiple(config)
    if any(side % multiple for side in shape[1:]):
        said = f"height and width are multiples of {multiple}, not {spoken_shape(shape)}."
        raise InvalidJob(Violation("job.inputs", said))
    return int(config.vision_config.patch_size)


def _multiple(config: Any) -> int:
    """The side of the part of an image that one vector becomes of."""
    return int(config.vision_config.patch_size) * _named(config, _MERGED)


def _named(config: Any, names: tuple[str, ...]) -> int:
    """The field of one of these names, of the vision part or the whole; of a pair of numbers, the
    first; 1 where there is none."""
    places = (config.vision_config, config)
    values = (getattr(place, name, None) for place in places for name in names)
    found = next(filter(None, values), 1)
    return int(found[0] if isinstance(found, (list, tuple)) else found)


def _any_size(config: Any) -> tuple[int, ...]:
    """The default image of a model that takes all sizes."""
    multiple = _multiple(config)
    side = -(-_FREE_SIDE // multiple) * multiple
    channels = getattr(config, "in_channels", None) or 3
    return (int(channels), side, side)


def _four_tiles(config: Any) -> tuple[int, ...]:
    """As most photographs become."""
    channels, height, width = transformers_defaults.image_shape(config)
    return (channels, 2 * height, 2 * width)
