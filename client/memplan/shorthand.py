"""The short ways to write parts of a job in a job file.

    expand(InputTensor, "ids=512:int64")    # {"name": "ids", "shape": [512], "dtype": "int64"}
    expand(Layer, {"conv": {"out_channels": 8, "kernel_size": 3}})
    compact(Layer, {"linear": {"out_features": 128}})       # {"linear": 128}

`expand` turns a shorthand into the fields of the contract and leaves what is none alone; `compact`
goes the other way. Both take and give plain data; ValueError says what is wrong with a shorthand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from memplan._schema import schema_of
from memplan.plain import did_you_mean
from memplan.types import (
    ActivationType,
    AllocatorSettings,
    Convolution,
    DataParallel,
    GpuTarget,
    InputTensor,
    Layer,
    LayerStack,
    Model,
    Optimizer,
    Pooling,
    Reshape,
    Residual,
    TrainingJob,
)

__all__ = ["compact", "expand", "parse_bytes", "parse_shape"]

_UNITS = {
    "b": 1,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?b|b)?", re.IGNORECASE)
_INPUT = re.compile(r"(?:(?P<name>[^=:]+)=)?(?P<shape>[^=:]*)(?::(?P<dtype>[^=:]+))?")

_KINDS: dict[str, tuple[str, dict[str, str], str]] = {
    "flatten": ("flatten", {}, ""),
    "linear": ("linear", {}, "out_features"),
    "conv": ("convolution", {}, "out_channels"),
    "conv_transpose": ("transposed_convolution", {}, "out_channels"),
    "max_pool": ("pooling", {"type": "max"}, "kernel_size"),
    "avg_pool": ("pooling", {"type": "average"}, "kernel_size"),
    "adaptive_max_pool": ("pooling", {"type": "adaptive-max"}, "output_size"),
    "adaptive_avg_pool": ("pooling", {"type": "adaptive-average"}, "output_size"),
    "batch_norm": ("normalization", {"type": "batch"}, ""),
    "layer_norm": ("normalization", {"type": "layer"}, ""),
    "group_norm": ("normalization", {"type": "group"}, "num_groups"),
    "instance_norm": ("normalization", {"type": "instance"}, ""),
    "rms_norm": ("normalization", {"type": "rms"}, ""),
    "dropout": ("dropout", {}, "p"),
    "embedding": ("embedding", {}, ""),
    "attention": ("multi_head_attention", {}, "num_heads"),
    "transformer_encoder": ("transformer_encoder_layer", {}, "num_heads"),
    "lstm": ("recurrent", {"type": "lstm"}, "hidden_size"),
    "gru": ("recurrent", {"type": "gru"}, "hidden_size"),
    "rnn": ("recurrent", {"type": "rnn"}, "hidden_size"),
    "residual": ("residual", {}, "body"),
    "upsample": ("upsample", {}, "scale_factor"),
    "sequence_pooling": ("sequence_pooling", {}, "type"),
    "reshape": ("reshape", {}, "shape"),
}
"""Shorthand: kind of layer, the fields it stands for, and the field that a bare value is for."""

for _activation in ActivationType:
    if _activation is not ActivationType.UNSPECIFIED:
        _KINDS[_activation.replace("-", "_")] = ("activation", {"type": _activation.value}, "")
_SHORT_NAMES = tuple(_KINDS)
for _kind, _value_field in {
    "convolution": "out_channels",
    "transposed_convolution": "out_channels",
    "pooling": "type",
    "normalization": "type",
    "activation": "type",
    "multi_head_attention": "num_heads",
    "transformer_encoder_layer": "num_heads",
    "recurrent": "type",
}.items():
    _KINDS[_kind] = (_kind, {}, _value_field)


def expand(cls: type[Any], data: Any) -> Any:
    """The fields that `data` stands for as an instance of `cls`."""
    rule = _EXPAND.get(cls)
    return data if rule is None else rule(data)


def compact(cls: type[Any], data: Any) -> Any:
    """The shortest way to write `data`, fields of an instance of `cls`, so that it expands back."""
    rule = _COMPACT.get(cls)
    short = data if rule is None else rule(data)
    return short if short is data or _expands_to(cls, short, data) else data


def _expands_to(cls: type[Any], short: Any, data: Any) -> bool:
    try:
        return bool(expand(cls, short) == data)
    except ValueError:
        return False


def parse_bytes(text: str) -> int:
    """Bytes: `12GiB`, `11.5 GiB`, `800MB`, `1048576`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size such as 12GiB, 800MiB or a number of bytes")
    return int(Fraction(match[1]) * _UNITS[(match[2] or "b").lower()])


def parse_shape(text: str) -> list[int]:
    """A shape: `3x224x224`, `512`; empty text is the shape of a scalar."""
    parts = re.split(r"\s*[x×,]\s*", text.strip()) if text.strip() else []
    try:
        return [int(part) for part in parts]
    except ValueError:
        raise ValueError(f"{text!r} is no shape such as 3x224x224 or 512") from None


def _expand_job(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    data = dict(data)
    if "batch_size" in data and "micro_batch_size" not in data:
        data["micro_batch_size"] = data.pop("batch_size")
    if isinstance(data.get("inputs"), str | Mapping):
        data["inputs"] = [data["inputs"]]
    return data


def _expand_model(data: Any) -> Any:
    if isinstance(data, str):
        return {"catalog": {"name": data}}
    if isinstance(data, list):
        return {"layer_stack": {"layers": data}}
    if not isinstance(data, Mapping):
        return data
    grouped: dict[str, Any] = {}
    for key, value in data.items():
        group = {"layers": "layer_stack", "name": "catalog", "config": "catalog", "task": "catalog"}
        if key in group and group[key] not in data:
            grouped.setdefault(group[key], {})[key] = value
        else:
            grouped[key] = value
    return grouped


def _compact_model(data: Any) -> Any:
    if set(data) == {"catalog"}:
        catalog = data["catalog"]
        return catalog["name"] if set(catalog) == {"name"} else catalog
    return data["layer_stack"] if set(data) == {"layer_stack"} else data


def _expand_input(data: Any) -> Any:
    if isinstance(data, int) and not isinstance(data, bool):
        return {"shape": [data]}
    if isinstance(data, list):
        return {"shape": data}
    if isinstance(data, Mapping) and isinstance(data.get("shape"), str | int):
        shape = data["shape"]
        return {**data, "shape": parse_shape(shape) if isinstance(shape, str) else [shape]}
    if not isinstance(data, str):
        return data
    match = _INPUT.fullmatch(data.strip())
    if match is None:
        raise ValueError(f"{data!r} is no input such as 3x224x224, 512:int64 or name=512:int64")
    name, dtype = match["name"], match["dtype"]
    shape = parse_shape(match["shape"])
    named = {"name": name.strip()} if name else {}
    typed = {"dtype": dtype.strip()} if dtype else {}
    return {**named, **({"shape": shape} if shape else {}), **typed}


def _compact_input(data: Any) -> Any:
    name = f"{data['name']}=" if "name" in data else ""
    dtype = f":{data['dtype']}" if "dtype" in data else ""
    return f"{name}{'x'.join(map(str, data.get('shape', [])))}{dtype}"


_Rule = Callable[[Any], Any]


def _expands(field: str) -> _Rule:
    """A text stands for a mapping with this field alone."""
    return lambda data: {field: data} if isinstance(data, str) else data


def _compacts(field: str) -> _Rule:
    return lambda data: data[field] if set(data) == {field} else data


def _expand_gpu(data: Any) -> Any:
    if isinstance(data, str):
        name, colon, free = data.partition(":")
        return {"gpu_type": name.strip(), **({"free_bytes": parse_bytes(free)} if colon else {})}
    if isinstance(data, Mapping) and isinstance(data.get("free_bytes"), str):
        return {**data, "free_bytes": parse_bytes(data["free_bytes"])}
    return data


def _compact_gpu(data: Any) -> Any:
    if "free_bytes" not in data:
        return data.get("gpu_type", data)
    free = data["free_bytes"]
    unit = next(u for u in ("GiB", "MiB", "KiB", "B") if free % _UNITS[u.lower()] == 0)
    return f"{data.get('gpu_type', '')}:{free // _UNITS[unit.lower()]}{unit}"


def _expand_allocator(data: Any) -> Any:
    """The syntax of PYTORCH_CUDA_ALLOC_CONF: `expandable_segments:True,max_split_size_mb:128`."""
    if not isinstance(data, str):
        return data
    settings: dict[str, Any] = {}
    for part in filter(None, re.split(r"\s*,\s*", data.strip())):
        name, colon, value = (piece.strip() for piece in part.partition(":"))
        if not colon or not value:
            raise ValueError(f"{part!r} is not name:value, as in max_split_size_mb:128")
        if name in settings:
            raise ValueError(f"{name} is given twice")
        settings[name] = _scalar(value)
    return settings


def _scalar(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _expand_layer(data: Any) -> Any:
    if isinstance(data, str):
        data = {data: {}}
    if not isinstance(data, Mapping):
        return data
    layer: dict[str, Any] = {}
    for key, value in data.items():
        if key in ("name", "repeat"):
            layer[key] = value
            continue
        name = str(key).replace("-", "_")
        if name not in _KINDS:
            raise ValueError(_no_kind(key, data))
        kind, preset, value_field = _KINDS[name]
        if kind in layer:
            raise ValueError(f"has more than one {kind}")
        layer[kind] = _kind_data(name, value, preset, value_field)
    return layer


def _no_kind(key: object, data: Mapping[Any, Any]) -> str:
    for other in map(str, data):
        kind, _, value_field = _KINDS.get(other, ("", {}, ""))
        if kind and key in schema_of(schema_of(Layer).by_name[kind].type).by_name:
            first = f"{value_field}: ..., " if value_field else ""
            return f"{key} belongs inside {other}: write `{other}: {{{first}{key}: ...}}`"
    hint = did_you_mean(key, [*_KINDS, "name", "repeat"])
    return f"{key!r} is no kind of layer{hint or '; one of ' + ', '.join(_SHORT_NAMES)}"


def _kind_data(key: str, value: Any, preset: Mapping[str, str], value_field: str) -> Any:
    if value is None:
        return dict(preset)
    if isinstance(value, Mapping):
        clash = sorted(preset.keys() & value.keys())
        if clash:
            raise ValueError(f"{key} says already what its {clash[0]} is: leave it out")
        return {**preset, **value}
    if not value_field:
        raise ValueError(f"{key} takes no single value: write its fields, or nothing")
    return {**preset, value_field: value}


def _compact_layer(data: Any) -> Any:
    kinds = [key for key in data if key not in ("name", "repeat")]
    if len(kinds) != 1:
        return data
    [kind] = kinds
    fields = data[kind]
    options = [
        name
        for name, (of, preset, _) in _KINDS.items()
        if of == kind and preset.items() <= fields.items()
    ]
    alias = max(options, key=lambda name: len(_KINDS[name][1]))
    _, preset, value_field = _KINDS[alias]
    rest: Any = {key: value for key, value in fields.items() if key not in preset}
    if set(rest) == {value_field} and not isinstance(rest[value_field], Mapping):
        rest = rest[value_field]
    if rest == {} and set(data) == {kind}:
        return alias
    return {**{k: v for k, v in data.items() if k != kind}, alias: rest}


def _expand_dimensions(data: Any) -> Any:
    """One number for a list of them; `3x3` for [3, 3]; `padding: same`."""
    if not isinstance(data, Mapping):
        return data
    data = dict(data)
    if data.get("padding") == "same":
        del data["padding"]
        data["same_padding"] = True
    for key in _DIMENSIONS & data.keys():
        if isinstance(data[key], int) and not isinstance(data[key], bool):
            data[key] = [data[key]]
        elif isinstance(data[key], str):
            data[key] = parse_shape(data[key])
    return data


_DIMENSIONS = {
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "output_padding",
    "output_size",
    "shape",
}


def _compact_dimensions(data: Any) -> Any:
    short = {**data}
    for key in _DIMENSIONS & data.keys():
        values = data[key]
        short[key] = values[0] if len(values) == 1 else "x".join(map(str, values))
    return short


_EXPAND: dict[type[Any], _Rule] = {
    TrainingJob: _expand_job,
    Model: _expand_model,
    LayerStack: lambda data: {"layers": data} if isinstance(data, list) else data,
    InputTensor: _expand_input,
    Optimizer: _expands("type"),
    DataParallel: _expands("strategy"),
    GpuTarget: _expand_gpu,
    AllocatorSettings: _expand_allocator,
    Layer: _expand_layer,
    Residual: lambda data: {"body": data} if isinstance(data, list) else data,
    Convolution: _expand_dimensions,
    Pooling: _expand_dimensions,
    Reshape: _expand_dimensions,
}
_COMPACT: dict[type[Any], _Rule] = {
    Model: _compact_model,
    InputTensor: _compact_input,
    Optimizer: _compacts("type"),
    DataParallel: _compacts("strategy"),
    GpuTarget: _compact_gpu,
    Layer: _compact_layer,
    Convolution: _compact_dimensions,
    Pooling: _compact_dimensions,
    Reshape: _compact_dimensions,
}
