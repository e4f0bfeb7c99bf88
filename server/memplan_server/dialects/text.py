"""Quoting: comments, YAML, and which names may appear at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memplan.types import GpuType

__all__ = ["comment", "documents", "labels", "mig_profile", "products"]

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_NOT_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Plain scalars that some YAML reader takes for something else."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BREAKS = re.compile("[\u2028\u2029]")
_PRODUCT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,61}[A-Za-z0-9])?")
_PROFILE = re.compile(r"[a-z0-9]([a-z0-9.]{0,30}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def comment(text: str) -> str:
    """`# text` and a newline; whatever the text has in it, it is one line."""
    line = _BREAKS.sub(" ", _UNPRINTABLE.sub(" ", text))
    return f"# {' '.join(line.split())}\n"


def products(gpu_type: GpuType) -> list[str]:
    """What NVML calls the GPU: `NVIDIA A100-SXM4-40GB`, for a MIG profile the whole one's name.

    Names with other signs than letters, digits, space, `.`, `_` and `-` are left out, so that the
    rest needs no quoting within quotes.
    """
    names = _of_whole_gpu(gpu_type, " ")
    dashed = {name.replace(" ", "-") for name in names if " " in name}
    return [name for name in names if _PRODUCT.fullmatch(name) and name not in dashed]


def labels(gpu_type: GpuType) -> list[str]:
    """What GPU Feature Discovery calls it: `NVIDIA-A100-SXM4-40GB`; valid values of labels."""
    return [name for name in _of_whole_gpu(gpu_type, "-") if _LABEL.fullmatch(name)]


def mig_profile(gpu_type: GpuType) -> str:
    """`3g.20gb`; empty for a whole GPU."""
    return gpu_type.name.removeprefix(f"{gpu_type.mig_parent}-mig-") if gpu_type.mig_parent else ""


def _of_whole_gpu(gpu_type: GpuType, space: str) -> list[str]:
    """The aliases, for a MIG profile without their ending; none where the profile is no word."""
    profile = mig_profile(gpu_type)
    if not profile:
        return list(gpu_type.aliases)
    if not _PROFILE.fullmatch(profile):
        return []
    ending = f"{space}MIG{space}{profile}"
    names = [n.removesuffix(ending) for n in gpu_type.aliases if n.endswith(ending)]
    return list(dict.fromkeys(names))


def _quoted(text: str) -> str:
    """A double-quoted string of JSON and YAML alike."""
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    odd = _BREAKS.sub(_escaped, _UNPRINTABLE.sub(_escaped, inside))
    return f'"{odd}"'


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def documents(*data: Mapping[str, Any]) -> str:
    """YAML documents of mappings, lists (not of lists), texts, whole numbers and booleans."""
    return "---\n".join("".join(f"{line}\n" for line in _mapping(one)) for one in data)


def _mapping(data: Mapping[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield f"{_scalar(key)}:"
            yield from (f"  {line}" for line in _mapping(value))
        elif isinstance(value, list | tuple) and value:
            yield f"{_scalar(key)}:"
            yield from (f"  {line}" for line in _sequence(value))
        else:
            yield f"{_scalar(key)}: {_scalar(value)}"


def _sequence(items: Sequence[Any]) -> Iterator[str]:
    for item in items:
        lines = list(_mapping(item)) if isinstance(item, Mapping) and item else [_scalar(item)]
        yield f"- {lines[0]}"
        yield from (f"  {line}" for line in lines[1:])


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT
        return value if plain else _quoted(value)
    return json.dumps(value)
