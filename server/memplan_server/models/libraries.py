"""The model libraries, imported when first needed, offline.

torchvision = libraries.load("torchvision")
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from types import ModuleType

from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import torchvision_ops

__all__ = ["LIBRARIES", "installed", "load"]

LIBRARIES = ("diffusers", "timm", "torchvision", "transformers")

_OFFLINE = {
    "DIFFUSERS_VERBOSITY": "critical",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "critical",
    "USE_HUB_KERNELS": "0",
}
"""What keeps Hugging Face's libraries off the network; they read it when they are imported."""


def load(library: str) -> ModuleType:
    """The library's top-level package.

    Raises `InvalidJob` when it is not installed.
    """
    module = _import(library)
    if module is None:
        said = f"This server has no {library}; it comes with `pip install memplan[models]`."
        raise InvalidJob(Violation("job.model.catalog.name", said))
    return module


def installed(library: str) -> bool:
    """Whether the library can be imported."""
    return _import(library) is not None


@functools.cache
def _import(library: str) -> ModuleType | None:
    os.environ.update(_OFFLINE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchvision_ops.define_missing()  # every library imports torchvision
            return importlib.import_module(library)
    except ImportError:
        return None
