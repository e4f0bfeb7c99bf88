"""Shapes and element types that follow from a transformers model's configuration."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from memplan.types import DataType
from memplan_server.models import transformers_config

__all__ = [
    "BOOLEANS",
    "IMAGE_TOKENS",
    "INDICES",
    "LEFT_OPEN",
    "complete",
    "fit_parts",
    "fitting",
    "holds_indices",
    "image_shape",
    "learned_positions",
    "main_shape",
]

INDICES = DataType.INT64
BOOLEANS = ("bool_masked_pos",)
"""Inputs that are masks of booleans."""

_SEQUENCE = 512
_IMAGE_SIZE = 224
_FRAMES = 16
_PATCHES = 2_048
"""Of an image cut into patches that begin with their row and column, as in Pix2Struct."""
_AUDIO_SAMPLES = 160_000
"""Ten seconds at 16 kHz."""
_SPECTROGRAM_STEPS = 1_000
"""Ten seconds of frames 10 ms apart."""
_BINS = ("num_mel_bins", "feature_projection_input_dim", "feature_size")
"""Fields of configurations with the height of a spectrogram, in a nested one where it has some."""
_TAKES_STACKED = "encoder.input_linear"
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "max_target_positions",
)
"""Fields of configurations that bound the length of a sequence."""
_POSITION_TABLES = ("position_embeddings", "wpe", "embed_positions", "position_embedding")
"""Names of modules that are tables of learned positions."""


def _mostly_convolutions(config: Any) -> list[str]:
    """As in LFM2-8B-A1B: about a quarter of the layers attend."""
    return ["full_attention" if i % 4 == 2 else "conv" for i in range(config.num_hidden_layers)]


def _first_is_dense(config: Any) -> list[str]:
    """As in DeepSeek-OCR-2: the first layer has no experts."""
    return ["sparse" if i else "dense" for i in range(config.num_hidden_layers)]


_HEADS_OF_128 = {"text_config.head_dim": 128}
_HALF_ROTATED = {"text_config.rope_parameters.partial_rotary_factor": 0.5}

LEFT_OPEN: Mapping[str, Mapping[str, Any]] = {
    "dbrx": {"attn_config.clip_qkv": 8.0, "attn_config.rope_theta": 500_000.0},
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": _first_is_dense,
        "text_config.num_experts_per_tok": 6,
    },
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6},
    "glm46v": _HALF_ROTATED,
    "glm4v": _HALF_ROTATED,
    "glm4v_moe": _HEADS_OF_128,
    "glmga": _HALF_ROTATED,
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": _HEADS_OF_128,
    "lfm2_moe": {"layer_types": _mostly_convolutions},
    "nemotron": {"num_key_value_heads": 8},
    "qwen3_omni_moe_thinker": _HEADS_OF_128,
    "step3p7": {"text_config.sliding_window": 512},
    "xmod": {"default_language": "en_XX"},
}
"""By model type: fields that transformers' defaults leave open though the model needs them, and
what models of the kind have there, as a value or a function of the configuration that has it."""

MISFITS: Mapping[str, Mapping[str, Any]] = {
    "aria": {
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 980,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
        }
    },
    "aya_vision": {"vision_config": {"image_size": 364, "num_attention_heads": 16}},
    "deepseek_ocr2": {
        "vision_config": {
            "encoder_config": {
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_attention_heads": 14,
                "num_hidden_layers": 24,
                "num_key_value_heads": 2,
            }
        }
    },
    "idefics3": {
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 364,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
        }
    },
    "smolvlm": {"vision_config": {"image_size": 512, "patch_size": 16}},
}
"""By model type: parts of transformers' default configuration that do not fit the rest, as its
published models have them."""

IMAGE_TOKENS = ("image_token_id", "image_token_index", "im_end_token_id")
"""Fields with the token that stands for a part of an image."""
_VOCABULARY_STEP = 64
"""Vocabularies are padded to multiples of it."""
_VISION_WIDTHS = {"paligemma": "projection_dim", "qwen2_vl": "hidden_size"}
"""The field of the vision part's configuration with the width of its vectors, where it is not
`out_hidden_size`."""

_NOT_TEXT = ("vision", "visual", "image")
"""Parts of the names of modules whose positions are not those of text."""


def complete(config: Any, model: str) -> tuple[str, ...]:
    """Fill in what the configuration leaves open; what was assumed."""
    said = []
    for path, value in LEFT_OPEN.get(config.model_type, {}).items():
        *parts, name = path.split(".")
        holder = functools.reduce(_field, parts, config)
        if _field(holder, name) is None:
            value = value(holder) if callable(value) else value
            _fill(holder, name, value)
            shown = "as in models of the kind" if isinstance(value, list) else value
            said.append(f"{path} is {shown}: the configuration of {model} leaves it open")
    return tuple(said)


def fitting(
    model_type: str, overrides: Mapping[str, Any], model: str
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Overrides of the default configuration after which its parts fit; what was assumed."""
    wanted = MISFITS.get(model_type)
    if wanted is None:
        return overrides, ()
    said = f"{', '.join(wanted)} is as in models of the kind: {model} has no default that fits"
    return _merged(wanted, overrides), (said,)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    made = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], Mapping) and isinstance(above[name], Mapping):
            made[name] = _merged(below[name], above[name])
    return made


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _fill(holder: Any, name: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[name] = value
    elif holder is not None:
        setattr(holder, name, value)


def fit_parts(config: Any) -> tuple[str, ...]:
    """Make the parts of an image-and-text model fit, which transformers' defaults do not always do;
    what was assumed."""
    text = _text(config)
    return () if text is config else (*_fit_vision(config, text), *_fit_vocabulary(config, text))


def _fit_vision(config: Any, text: Any) -> tuple[str, ...]:
    """Make image vectors as wide as the text's."""
    vision = getattr(config, "vision_config", None)
    field = _VISION_WIDTHS.get(config.model_type, "out_hidden_size")
    given, wanted = getattr(vision, field, None), getattr(text, "hidden_size", None)
    if None in (given, wanted) or given == wanted:
        return ()
    setattr(vision, field, wanted)
    return (
        f"{field} of the vision part is {wanted}, the width of the text; its default does not fit",
    )


def _fit_vocabulary(config: Any, text: Any) -> tuple[str, ...]:
    """Make room for the placeholder tokens."""
    size = getattr(text, "vocab_size", None)
    tokens = [getattr(config, name, None) for name in IMAGE_TOKENS]
    last = max((token for token in tokens if isinstance(token, int)), default=0)
    if size is None or last < size:
        return ()
    text.vocab_size = -(-(last + 1) // _VOCABULARY_STEP) * _VOCABULARY_STEP
    return (
        f"vocab_size of the text is {text.vocab_size}: the default has no room for the token of "
        f"images, {last}",
    )


def holds_indices(name: str) -> bool:
    """Whether an input of forward() holds indices or a mask of 0 and 1."""
    return name.endswith(("ids", "mask", "labels", "positions", "position", "bbox"))


def main_shape(module: nn.Module, name: str, task: str, room: int = 0) -> tuple[int, ...]:
    """Shape of one sample of the main input when the job does not give one; `room` tokens more
    where it is text."""
    config: Any = module.config
    if name == "pixel_values" or name == "pixel_values_videos":
        return _pixels(config, video=task == "video-classification")
    if name == "input_features":
        return _features(module)
    if name == "flattened_patches":
        side = int(getattr(config.vision_config, "patch_size", 16))
        return (_PATCHES, 2 + 3 * side**2)
    if name == "input_values":
        steps = getattr(config, "max_length", None)
        bins = getattr(config, "num_mel_bins", None)
        return (_AUDIO_SAMPLES,) if bins is None or steps is None else (int(steps), int(bins))
    return (_sequence(module, room),)


def image_shape(config: Any) -> tuple[int, ...]:
    """Shape of the image that the vision part is made for."""
    return _pixels(config, video=False)


def _sequence(module: nn.Module, room: int) -> int:
    """Tokens of a text; a limit that leaves no `room` counts only where there is a table."""
    config = _text(module.config)
    named = [getattr(config, name, None) for name in _POSITIONS]
    limits = [n for n in named if isinstance(n, int) and n > room]
    table = learned_positions(module)
    longest: int = min([_SEQUENCE + room, *limits])
    return longest if table is None else min(longest, table)


def _text(config: Any) -> Any:
    """The part of a configuration that is about text."""
    try:
        return config.get_text_config()
    except ValueError:  # more than one
        return config


def _pixels(config: Any, *, video: bool) -> tuple[int, ...]:
    vision = getattr(config, "vision_config", None) or config
    parts = transformers_config.configurations(vision)
    sizes = (found for part in parts if (found := getattr(part, "image_size", None)))
    size = next(sizes, _IMAGE_SIZE)
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = (size, size) if isinstance(size, int) else size
    image = (int(getattr(vision, "num_channels", None) or 3), int(height), int(width))
    return (int(getattr(vision, "num_frames", None) or _FRAMES), *image) if video else image


def _features(module: nn.Module) -> tuple[int, ...]:
    """A spectrogram: bins first for Whisper, whose length is fixed, else time first."""
    config: Any = module.config
    bins = 80
    for each in transformers_config.configurations(config):
        named = (getattr(each, name, None) for name in _BINS)
        bins = next((int(n) for n in named if n), bins)
    if config.model_type == "whisper":
        return (bins, 2 * int(config.max_source_positions))
    return (_SPECTROGRAM_STEPS, _stacked(module) or bins)


def _stacked(module: nn.Module) -> int | None:
    """Height of a spectrogram of which some frames are stacked, by the layer that takes it."""
    layers = (m for name, m in module.named_modules() if name.endswith(_TAKES_STACKED))
    return next((layer.in_features for layer in layers if isinstance(layer, nn.Linear)), None)


def learned_positions(module: nn.Module) -> int | None:
    """Length of the longest sequence that the tables of learned positions allow; None without one.

    RoBERTa's descendants begin to count after the padding index.
    """
    lengths = []
    for name, table in module.named_modules():
        of_text = not any(part in name for part in _NOT_TEXT)
        named = of_text and name.rpartition(".")[2] in _POSITION_TABLES
        if named and isinstance(table, nn.Embedding):
            padding = table.padding_idx
            lengths.append(table.num_embeddings - (0 if padding is None else padding + 1))
    return min(lengths, default=None)
