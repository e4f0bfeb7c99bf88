"""The GPU catalog: one TOML file for each GPU type, in `types/`.

    catalog = GpuCatalog.load()
    catalog.get("NVIDIA A100-SXM4-40GB MIG 3g.20gb").name   # "nvidia-a100-40gb-mig-3g.20gb"

A file is named like its GPU type and holds

    aliases                 names that NVML gives the product
    total_mib               memory that nvidia-smi shows, MiB
    usable_mib              memory that CUDA reports for the device, MiB
    context_mib             CUDA context and the kernels that a training step loads, MiB
    compute_capability      "8.0"
    multiprocessor_count    streaming multiprocessors
    [sources]               where each number comes from, by field of `GpuType`
    [[mig]]                 one table for each MIG profile: profile, instance_count, total_mib,
                            context_mib, multiprocessor_count; `sources` where they differ from
                            [mig_sources]

Memory is what was seen with one driver version; drivers differ by up to 0.5 %. On a real machine
NVML's own figure is better.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from memplan.types import GpuType
from memplan_server.errors import UnknownName

__all__ = ["CatalogError", "GpuCatalog"]

MIB = 1 << 20
TYPES = "types"
KEYS = {"aliases", "total_mib", "usable_mib", "context_mib", "compute_capability"} | {
    "multiprocessor_count",
    "sources",
}
MIG_KEYS = {"profile", "instance_count", "total_mib", "context_mib", "multiprocessor_count"}
SOURCED = ("total_bytes", "usable_bytes", "context_bytes", "multiprocessor_count")


class CatalogError(ValueError):
    """A file of the catalog is wrong: a defect of the data, named by file."""


class GpuCatalog:
    """GPU types by name and alias. Immutable."""

    def __init__(self, gpu_types: Iterable[GpuType]) -> None:
        self._gpu_types = tuple(sorted(gpu_types, key=lambda gpu_type: gpu_type.name))
        self._by_key: dict[str, GpuType] = {}
        for gpu_type in self._gpu_types:
            _check(gpu_type)
            # A name and its aliases may share a key: `nvidia-l4` and `NVIDIA L4` do.
            for key in {_key(name) for name in (gpu_type.name, *gpu_type.aliases)}:
                if (other := self._by_key.setdefault(key, gpu_type)) is not gpu_type:
                    raise CatalogError(f"{gpu_type.name}: {key!r} also names {other.name}")

    @classmethod
    def load(cls, folder: Traversable | None = None) -> GpuCatalog:
        """Read every `*.toml` of a folder; by default those that come with the package.

        Raises CatalogError, naming the file, when one is wrong.
        """
        folder = folder or files(__package__) / TYPES
        paths = [path for path in folder.iterdir() if path.name.endswith(".toml")]
        return cls(gpu_type for path in paths for gpu_type in _read(path))

    def get(self, name: str) -> GpuType:
        """The GPU type of a name or alias.

        Case does not matter; a space, `_` and `-` are the same; a leading `nvidia-` may be left
        out; the `-SHARED` that GPU Feature Discovery appends to a time-sliced GPU is passed over.
        Raises UnknownName with the nearest names.
        """
        if (gpu_type := self._by_key.get(_key(name))) is not None:
            return gpu_type
        raise UnknownName("GPU type", name, self._nearest(name))

    def all(self) -> tuple[GpuType, ...]:
        """Every type, sorted by name; MIG profiles follow the GPU they are a slice of."""
        return self._gpu_types

    def _nearest(self, name: str) -> tuple[str, ...]:
        """Up to three names that contain it, or else are like it; whole GPUs first."""
        key = _key(name)
        keys = [k for k in self._by_key if key and key in k]
        keys += difflib.get_close_matches(key, self._by_key, n=6, cutoff=0.5)  # t5: t4
        near = sorted((self._by_key[k] for k in keys), key=lambda g: bool(g.mig_parent))
        return tuple(dict.fromkeys(gpu_type.name for gpu_type in near))[:3]


def _key(name: str) -> str:
    """What is compared instead of a name."""
    key = re.sub(r"[\s_-]+", "-", name.strip().lower())
    return key.removeprefix("nvidia-").removesuffix("-shared")


def _read(path: Traversable) -> Iterator[GpuType]:
    """The GPU type of one file, then its MIG profiles."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        gpu_type = _whole(path.name.removesuffix(".toml"), data)
        profiles = [_slice(gpu_type, data, mig) for mig in data.get("mig", ())]
    except KeyError as error:
        raise CatalogError(f"{path.name}: {error.args[0]} is missing") from None
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise CatalogError(f"{path.name}: {error}") from error
    yield gpu_type
    yield from profiles


def _whole(name: str, data: Mapping[str, Any]) -> GpuType:
    _refuse_unknown(data, KEYS | {"mig", "mig_sources"})
    return GpuType(
        name=name,
        aliases=_with_labels(data["aliases"]),
        total_bytes=_integer(data, "total_mib") * MIB,
        usable_bytes=_integer(data, "usable_mib") * MIB,
        context_bytes=_integer(data, "context_mib") * MIB,
        compute_capability=data["compute_capability"],
        multiprocessor_count=_integer(data, "multiprocessor_count"),
        sources=dict(data["sources"]),
    )


def _slice(parent: GpuType, data: Mapping[str, Any], mig: Mapping[str, Any]) -> GpuType:
    _refuse_unknown(mig, MIG_KEYS | {"sources"})
    profile = mig["profile"]
    return GpuType(
        name=f"{parent.name}-mig-{profile}",
        aliases=_with_labels(f"{alias} MIG {profile}" for alias in data["aliases"]),
        total_bytes=_integer(mig, "total_mib") * MIB,
        usable_bytes=_integer(mig, "total_mib") * MIB,
        context_bytes=_integer(mig, "context_mib") * MIB,
        compute_capability=parent.compute_capability,
        multiprocessor_count=_integer(mig, "multiprocessor_count"),
        mig_parent=parent.name,
        mig_instance_count=_integer(mig, "instance_count"),
        sources={
            "compute_capability": parent.sources["compute_capability"],
            **data["mig_sources"],
            **mig.get("sources", {}),
        },
    )


def _integer(data: Mapping[str, Any], key: str) -> int:
    value = data[key]
    if type(value) is not int:
        raise ValueError(f"{key} is {value!r}, not an integer")
    return value


def _refuse_unknown(data: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(data) - known):
        raise ValueError(f"unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _with_labels(names: Iterable[str]) -> tuple[str, ...]:
    """NVML's names, each followed by its form in node labels: a `-` for every space."""
    return tuple(dict.fromkeys(n for name in names for n in (name, name.replace(" ", "-"))))


def _check(gpu_type: GpuType) -> None:
    """Raise CatalogError when a type contradicts itself."""
    problems = {
        "the name is not kebab-case": not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", gpu_type.name),
        "not context < usable <= total": not (
            0 < gpu_type.context_bytes < gpu_type.usable_bytes <= gpu_type.total_bytes
        ),
        "compute_capability is not like 8.0": not re.fullmatch(
            r"\d+\.\d", gpu_type.compute_capability
        ),
        "multiprocessor_count is not positive": gpu_type.multiprocessor_count < 1,
        "mig_instance_count is not positive": bool(gpu_type.mig_parent)
        and gpu_type.mig_instance_count < 1,
        "a number has no source": any(not gpu_type.sources.get(field) for field in SOURCED),
    }
    if found := [problem for problem, is_there in problems.items() if is_there]:
        raise CatalogError(f"{gpu_type.name}: {'; '.join(found)}")
