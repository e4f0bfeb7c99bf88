"""A function of the user's own file, executed: `train.py:make_model`.

    made = call("train.py:make_model")      # {"module": ..., "inputs": ...}

The function takes nothing. It returns a torch.nn.Module, or a dict of the arguments of
`memplan.capture_job`: the module and what else belongs to it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from memplan.errors import CaptureError
from memplan.plain import did_you_mean

__all__ = ["call", "is_factory"]

ARGUMENTS = (
    "module",
    "inputs",
    "optimizer",
    "kwargs",
    "loss",
    "targets",
    "batch_dim",
    "batch_size",
    "precision",
    "state_count",
    "assumptions",
)
"""What the function may return, by name."""
_FACTORY = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def is_factory(model: str) -> bool:
    """Whether it names a function in a file and no model of the server's.

    Raises click.UsageError for a file without a function.
    """
    file, _, name = model.rpartition(":") if ".py:" in model else (model, "", "")
    if file.endswith(".py") and not name:
        raise click.UsageError(f"Name the function that makes the model: {file}:make_model.")
    return _FACTORY.fullmatch(model) is not None


def call(model: str) -> dict[str, Any]:
    """What the function makes: the arguments of `memplan.capture_job` that it gives.

    Raises `CaptureError` with the line of the user's file, and click.UsageError for a file or
    function that is not there.
    """
    matched = _FACTORY.fullmatch(model)
    assert matched is not None
    file = Path(matched["file"])
    with _surroundings(file):
        return _arguments(_made(_function(file, matched["name"]), model, file), model)


@contextlib.contextmanager
def _surroundings(file: Path) -> Iterator[None]:
    """As if the file were run: it can import its neighbours. What it prints is no result."""
    argv = sys.argv
    sys.argv = [str(file)]
    sys.path.insert(0, str(file.resolve().parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv = argv
        sys.path.pop(0)


def _function(file: Path, name: str) -> Callable[[], Any]:
    if not file.is_file():
        raise click.UsageError(f"There is no file {file}.")
    module = _executed(file)
    function = getattr(module, name, None)
    if not callable(function):
        here = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == _name(file)]
        hint = did_you_mean(name, here) or "."
        raise click.UsageError(f"{file} has no function {name}{hint}")
    made: Callable[[], Any] = function
    return made


def _name(file: Path) -> str:
    return f"memplan_factory_{file.stem}"


def _executed(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_name(file), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_name(file)] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        said = f"{file} ends the program. Put what trains under `if __name__ == '__main__':`."
        raise CaptureError(said, location=_line(error, file)) from error
    except Exception as error:  # whatever the user's code raises
        said = f"{file} cannot be executed: {_said(error)}"
        raise CaptureError(said, location=_line(error, file)) from error
    return module


def _made(function: Callable[[], Any], model: str, file: Path) -> Any:
    """What the function makes: without memory where its code allows that, else with."""
    import torch

    try:
        with torch.device("meta"):
            return function()
    except SystemExit as error:
        raise CaptureError(f"{model}() ends the program.", location=_line(error, file)) from error
    except Exception:  # code that looks at values cannot run without them
        try:
            return function()
        except Exception as error:
            said = f"{model}() fails: {_said(error)}"
            raise CaptureError(said, location=_line(error, file)) from error


def _arguments(made: Any, model: str) -> dict[str, Any]:
    import torch

    found = dict(made) if isinstance(made, Mapping) else {"module": made}
    for name in found:
        if name not in ARGUMENTS:
            hint = did_you_mean(name, ARGUMENTS) or f"; it may have {', '.join(ARGUMENTS)}."
            raise CaptureError(f"{model}() returns a dict with {name!r}{hint}")
    if "module" not in found:
        raise CaptureError(f"{model}() returns a dict without the module.")
    if not isinstance(found["module"], torch.nn.Module):
        kind = type(found["module"]).__name__
        said = "its module is" if isinstance(made, Mapping) else "it returns"
        hint = "a torch.nn.Module, or a dict with one and what belongs to it"
        raise CaptureError(f"{model}(): {said} {kind}, not {hint}.")
    return found


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _path(filename: str) -> str:
    return str(Path(filename).resolve())


def _line(error: BaseException, file: Path) -> str:
    """The innermost line of the user's file that the error came through."""
    here = str(file.resolve())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _path(f.filename) == here]
    if isinstance(error, SyntaxError) or not frames:
        return ""  # a syntax error says its line itself
    line = frames[-1].lineno or 0
    code = linecache.getline(frames[-1].filename, line).strip()
    return f"{file}:{line}, `{code}`"
