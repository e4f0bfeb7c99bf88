"""torchvision's compiled operators, where they cannot be loaded.

torchvision's wheel is compiled against one build of PyTorch: with another one (a CUDA torchvision
beside a CPU PyTorch) its library of compiled operators does not load, and importing torchvision
fails with `operator torchvision::nms does not exist`, because it registers shape functions for two
operators unconditionally. Their schemas alone mend that. None of the models here uses the operators
themselves (they are for object detection).

Sources: torchvision/extension.py (loading), torchvision/_meta_registrations.py (`register_fake`).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

import torch

__all__ = ["define_missing"]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_libraries: list[torch.library.Library] = []  # a Library undoes its definitions when collected


def define_missing() -> None:
    """Define the operators that importing torchvision needs, if its own cannot be loaded.

    Call it before torchvision is imported. Does nothing without torchvision.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or _libraries or hasattr(torch.ops.torchvision, "nms"):
        return
    if not any(_loads(Path(folder)) for folder in spec.submodule_search_locations or ()):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _libraries.append(library)


def _loads(folder: Path) -> bool:
    """Whether the library of compiled operators in `folder` loads into this PyTorch."""
    suffixes = [*importlib.machinery.EXTENSION_SUFFIXES, ".so", ".pyd"]
    candidates = [folder / f"_C{suffix}" for suffix in suffixes]
    for path in filter(Path.exists, candidates):
        try:
            torch.ops.load_library(path)
        except OSError:
            return False
        return True
    return False
