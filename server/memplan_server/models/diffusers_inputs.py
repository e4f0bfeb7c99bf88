"""What a diffusion network's training step is fed with, by its configuration.

    for wanted in unet_2d_condition(config): ...    # sample, timestep, encoder_hidden_states

Each function gives what forward() takes of one class, in its order. Lengths of texts, which no
configuration says, are those of the text encoders that the published models were trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from memplan.types import DataType, InputTensor, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models.images import float_type, spoken_shape

__all__ = ["INPUTS", "PACKED", "Wanted", "resolve"]

FIELD = "job.model.catalog.config"

PACKED = ("text_embeds", "time_ids")
"""Inputs that forward() takes within `added_cond_kwargs`."""
_CLIP_TOKENS = 77
_T5_TOKENS = {"FluxTransformer2DModel": 512, "PixArtTransformer2DModel": 300}
_CLIP_AND_T5_TOKENS = 77 + 256
_TIME_IDS = 6
"""Original size, cropping and target size of an image."""
_LATENT_TOKENS = 64 * 64
"""Of an image of 1024 x 1024: an eighth of it, in patches of 2 x 2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One input."""

    name: str
    shape: tuple[int, ...] = ()
    """By default, of one sample; 0 where nothing says how large it is."""
    free: tuple[int, ...] = ()
    """The dimensions that may have other sizes."""
    dtype: DataType = DataType.UNSPECIFIED
    """Unspecified: the job's type of numbers."""


Inputs = Callable[[Mapping[str, Any]], Iterator[Wanted]]
"""From a configuration with all its fields to the inputs."""


def _sample(name: str, config: Mapping[str, Any]) -> Wanted:
    size = config["sample_size"] or 0
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return Wanted(name=name, shape=(config["in_channels"], height, width), free=(1, 2))


def _states(length: int, features: int) -> Wanted:
    return Wanted(name="encoder_hidden_states", shape=(length, features), free=(0,))


_TIMESTEP = Wanted(name="timestep", dtype=DataType.INT64)
_CLASS = Wanted(name="class_labels", dtype=DataType.INT64)


def _unet_2d(config: Mapping[str, Any]) -> Iterator[Wanted]:
    yield _sample("sample", config)
    yield _TIMESTEP
    yield from _unet_classes(config)


def _unet_classes(config: Mapping[str, Any]) -> Iterator[Wanted]:
    kind = config["class_embed_type"]
    if kind == "timestep" or (kind is None and config["num_class_embeds"] is not None):
        yield _CLASS
    elif kind == "identity":
        features = config["time_embedding_dim"] or config["block_out_channels"][0] * 4
        yield Wanted(name="class_labels", shape=(features,))
    elif kind in ("projection", "simple_projection"):
        features = config["projection_class_embeddings_input_dim"]
        yield Wanted(name="class_labels", shape=(features,))


def _unet_2d_condition(config: Mapping[str, Any]) -> Iterator[Wanted]:
    _refuse_images(config)
    yield _sample("sample", config)
    yield _TIMESTEP
    features = config["cross_attention_dim"]
    if isinstance(features, (list, tuple)):
        features = max(features)
    if config["encoder_hid_dim_type"] == "text_proj":
        features = config["encoder_hid_dim"]
    yield _states(_CLIP_TOKENS, features)
    yield from _unet_classes(config)
    if config["addition_embed_type"] == "text_time":
        time = _TIME_IDS * config["addition_time_embed_dim"]
        pooled = config["projection_class_embeddings_input_dim"] - time
        yield Wanted(name="text_embeds", shape=(pooled,))
        yield Wanted(name="time_ids", shape=(_TIME_IDS,))


def _refuse_images(config: Mapping[str, Any]) -> None:
    """Networks that are conditioned by images want more than a configuration tells."""
    for name, known in (
        ("encoder_hid_dim_type", (None, "text_proj")),
        ("addition_embed_type", (None, "text", "text_time")),
    ):
        if config[name] not in known:
            said = (
                f"{config[name]!r} has inputs that are not known here. Capture the module with "
                "example inputs, and plan the capture."
            )
            raise InvalidJob(Violation(f"{FIELD}.{name}", said))


def _dit(config: Mapping[str, Any]) -> Iterator[Wanted]:
    yield _sample("hidden_states", config)
    yield _TIMESTEP
    yield _CLASS


def _pixart(config: Mapping[str, Any]) -> Iterator[Wanted]:
    if config["use_additional_conditions"] or (
        config["use_additional_conditions"] is None and config["sample_size"] == 128
    ):
        said = "must be false: resolutions and aspect ratios as conditions are not known here."
        raise InvalidJob(Violation(f"{FIELD}.use_additional_conditions", said))
    yield _sample("hidden_states", config)
    features = config["caption_channels"] or config["cross_attention_dim"]
    yield _states(_T5_TOKENS["PixArtTransformer2DModel"], features)
    yield _TIMESTEP


def _sd3(config: Mapping[str, Any]) -> Iterator[Wanted]:
    yield _sample("hidden_states", config)
    yield _states(_CLIP_AND_T5_TOKENS, config["joint_attention_dim"])
    yield Wanted(name="pooled_projections", shape=(config["pooled_projection_dim"],))
    yield replace(_TIMESTEP, dtype=DataType.UNSPECIFIED)


def _flux(config: Mapping[str, Any]) -> Iterator[Wanted]:
    shape = (_LATENT_TOKENS, config["in_channels"])
    yield Wanted(name="hidden_states", shape=shape, free=(0,))
    yield _states(_T5_TOKENS["FluxTransformer2DModel"], config["joint_attention_dim"])
    yield Wanted(name="pooled_projections", shape=(config["pooled_projection_dim"],))
    yield replace(_TIMESTEP, dtype=DataType.UNSPECIFIED)
    if config["guidance_embeds"]:
        yield Wanted(name="guidance")


INPUTS: Mapping[str, Inputs] = {
    "DiTTransformer2DModel": _dit,
    "FluxTransformer2DModel": _flux,
    "PixArtTransformer2DModel": _pixart,
    "SD3Transformer2DModel": _sd3,
    "UNet2DConditionModel": _unet_2d_condition,
    "UNet2DModel": _unet_2d,
}
"""The classes that can be built from a configuration alone."""


def resolve(
    job: TrainingJob, wanted: list[Wanted], model: str
) -> tuple[tuple[InputTensor, ...], tuple[str, ...]]:
    """The inputs, those of the job in place of the default ones, and what was assumed.

    Inputs without a name are the first ones that are not named. Raises `InvalidJob`.
    """
    given = _named(job, wanted, model)
    assumed = [w for w in wanted if w.name not in given and w.free]
    for each in assumed:
        if 0 in each.shape:
            shape = spoken_shape([size or 64 for size in each.shape])
            said = (
                f"The configuration has no sample_size: give the input, such as {shape} "
                f"(--input {shape}), or sample_size in config."
            )
            raise InvalidJob(Violation("job.inputs", said))
    sizes = " and ".join(f"{w.name} of {spoken_shape(w.shape)}" for w in assumed)
    inputs = tuple(_typed(job, w, given.get(w.name)) for w in wanted)
    return inputs, ((f"the input is {sizes}, the default of {model}",) if assumed else ())


def _named(job: TrainingJob, wanted: list[Wanted], model: str) -> dict[str, InputTensor]:
    by_name = {each.name: each for each in wanted}
    taken = {tensor.name for tensor in job.inputs}
    free = iter([name for name in by_name if name not in taken])
    named: dict[str, InputTensor] = {}
    for index, tensor in enumerate(job.inputs):
        name = tensor.name or next(free, "")
        if name not in by_name:
            said = f"{model} has no input {name!r}; it takes {', '.join(by_name)}."
            raise InvalidJob(Violation(f"job.inputs[{index}].name", said))
        _check(tensor.shape, by_name[name], index)
        named[name] = replace(tensor, name=name)
    return named


def _check(shape: tuple[int, ...], wanted: Wanted, index: int) -> None:
    alike = len(shape) == len(wanted.shape) and all(
        given == size or axis in wanted.free
        for axis, (given, size) in enumerate(zip(shape, wanted.shape, strict=True))
    )
    if not alike:
        like = spoken_shape([size or 64 for size in wanted.shape])
        said = f"{wanted.name} is {spoken_shape(shape)}, but must be like {like}."
        raise InvalidJob(Violation(f"job.inputs[{index}].shape", said))


def _typed(job: TrainingJob, wanted: Wanted, given: InputTensor | None) -> InputTensor:
    tensor = given or InputTensor(name=wanted.name, shape=wanted.shape)
    if tensor.dtype is not DataType.UNSPECIFIED:
        return tensor
    default = float_type(job) if wanted.dtype is DataType.UNSPECIFIED else wanted.dtype
    return replace(tensor, dtype=default)
