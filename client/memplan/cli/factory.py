"""A model made by a function of the user's own file: `train.py:make_model`.

The file is executed here, on the user's side; what is sent is the captured graph.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from memplan.errors import CaptureError
from memplan.types import Loss, Model, Precision, TrainingJob

if TYPE_CHECKING:
    from torch import nn

__all__ = ["captured", "is_factory"]

_FACTORY = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")
_HALF = {Precision.BF16: "bfloat16", Precision.FP16: "float16"}


def is_factory(model: str) -> bool:
    """Whether it names a function in a file and no model of the server's."""
    return _FACTORY.fullmatch(model) is not None


def captured(model: str, job: TrainingJob) -> TrainingJob:
    """The job with the model that the function makes, captured for the job's inputs.

    Raises `CaptureError`, and click.UsageError for a file or function that is not there.
    """
    matched = _FACTORY.fullmatch(model)
    assert matched is not None
    if not job.inputs:
        raise click.UsageError(f"{model} needs --input, such as --input 3x224x224.")
    try:
        import memplan.capturing
    except ImportError as error:
        raise click.UsageError(f"{model} needs PyTorch here: pip install torch.") from error
    module = _made(_function(Path(matched["file"]), matched["name"]), model)
    if job.precision in _HALF:
        import torch

        module = module.to(getattr(torch, _HALF[job.precision]))
    graph = memplan.capturing.capture(
        module,
        tuple(i for i in job.inputs if not i.name),
        kwargs={i.name: i for i in job.inputs if i.name},
        loss=None if job.loss in (Loss.UNSPECIFIED, Loss.MODEL) else job.loss,
        assumptions=job.assumptions,
    )
    return replace(job, model=Model(graph=graph), inputs=())


def _function(file: Path, name: str) -> Callable[[], Any]:
    if not file.is_file():
        raise click.UsageError(f"There is no file {file}.")
    function = getattr(_executed(file), name, None)
    if not callable(function):
        raise click.UsageError(f"{file} has no function {name}.")
    made: Callable[[], Any] = function
    return made


def _executed(file: Path) -> ModuleType:
    """The file as a module; it can import its neighbours."""
    name = f"memplan_factory_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise CaptureError(f"{file} cannot be executed: {_said(error)}") from error
    finally:
        sys.path.pop(0)
    return module


def _made(function: Callable[[], Any], model: str) -> nn.Module:
    """What the function makes: without memory where its code allows that, else with."""
    import torch

    try:
        with torch.device("meta"):
            made = function()
    except Exception:  # code that looks at values cannot run without them
        try:
            made = function()
        except Exception as error:
            raise CaptureError(f"{model}() fails: {_said(error)}") from error
    if not isinstance(made, torch.nn.Module):
        raise CaptureError(f"{model}() returns {type(made).__name__}, not a torch.nn.Module.")
    return made


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
