"""The surroundings in which a library's constructor makes a model.

    with construction("job.model.catalog.config"):
        module = resnet50(num_classes=10)

Within, tensors are made on the meta device, unless `made_on` names another; the initialisers of
`torch.nn.init` do nothing, since values are never looked at and they cost most of the time; modules
and parameter elements are counted, and a model beyond the limits is refused while it grows. What
constructors read from small tensors of numbers is worked out.
Whatever a constructor raises is about the request's options.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from memplan_server.errors import InvalidJob, MemplanError, Violation
from memplan_server.models.explained import explain
from memplan_server.models.readable import readable

__all__ = ["MOST_ELEMENTS", "MOST_MODULES", "construction", "made_on"]

MOST_ELEMENTS = 2**44
"""Elements of all parameters of a model: sixteen times the largest model known."""
MOST_MODULES = 200_000
"""Modules of a model. The deepest in the catalogs have some 20,000."""

_NO_DEFAULT = "Its default configuration does not work: give one that does in config."

_device: ContextVar[str] = ContextVar("device", default="meta")
_INITIALISERS = tuple(
    name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")
)
_IMPORT_INITIALISERS = (
    "torch.nn.init",
    "torch.nn.modules.activation",
    "torch.nn.modules.transformer",
)
"""Modules of PyTorch that hold initialisers by name."""


@contextlib.contextmanager
def construction(field: str) -> Iterator[None]:
    """Make modules inside. `field` is the part of the request that errors are about.

    Raises `InvalidJob`.
    """
    try:
        with (
            readable(torch.device(_device.get())),
            _uninitialised(),
            _limited(field),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    except (MemplanError, MemoryError):
        raise
    except Exception as error:
        remedy = _NO_DEFAULT if field.endswith(".name") else ""
        said = f"The model cannot be built so: {explain(error, remedy)}"
        raise InvalidJob(Violation(field, said)) from error


@contextlib.contextmanager
def made_on(device: str) -> Iterator[None]:
    """Inside, models are made on this device instead of the meta device: for runs with real data.

    Tables that constructors compute have their values; parameters have none.
    """
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def _as_it_is(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Stands in for an initialiser."""
    return tensor


@contextlib.contextmanager
def _uninitialised() -> Iterator[None]:
    originals: list[tuple[Any, str, Any]] = []
    for name in _IMPORT_INITIALISERS:
        holder = sys.modules[name]
        for initialiser in _INITIALISERS:
            if hasattr(holder, initialiser):
                originals.append((holder, initialiser, getattr(holder, initialiser)))
                setattr(holder, initialiser, _as_it_is)
    try:
        yield
    finally:
        for holder, initialiser, original in originals:
            setattr(holder, initialiser, original)


@contextlib.contextmanager
def _limited(field: str) -> Iterator[None]:
    """Refuse a model that grows beyond the limits. Tied parameters count each time they are set."""
    modules = elements = 0

    def on_module(*_: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > MOST_MODULES:
            said = f"The model has more than {MOST_MODULES:,} modules."
            raise InvalidJob(Violation(field, said))

    def on_parameter(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal elements
        elements += 0 if parameter is None else parameter.numel()
        if elements > MOST_ELEMENTS:
            said = "The model has more than 2^44 parameters."
            raise InvalidJob(Violation(field, said))

    handles = (
        hooks.register_module_module_registration_hook(on_module),
        hooks.register_module_parameter_registration_hook(on_parameter),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
