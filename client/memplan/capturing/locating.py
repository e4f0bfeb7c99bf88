"""Lines of the module's code that errors are about."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path

import torch
from torch import fx, nn

import memplan.fakes

__all__ = ["line_of", "line_of_error", "module_of_error"]

_TORCH = str(Path(torch.__file__).parent)
_OURS = tuple(str(Path(file).parent) for file in (__file__, memplan.fakes.__file__))


def line_of_error(error: BaseException) -> str:
    """The innermost line outside PyTorch and memplan that the error came through."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_TORCH, *_OURS, "<"))
        and "/contextlib.py" not in frame.filename
    ]
    if not frames:
        return ""
    frame = frames[-1]
    code = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{frame.filename}:{frame.lineno} in {frame.name}, `{code}`"


def module_of_error(error: BaseException, module: nn.Module) -> str:
    """The innermost module within `module` that the error came through, by its path."""
    names = {id(inner): (path, type(inner).__name__) for path, inner in module.named_modules()}
    found = ("", "")
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = names.get(id(frame.f_locals.get("self")), found)
    return f"module {found[0]} ({found[1]})" if found[0] else ""


def _is_inner(line: str) -> bool:
    return any(ours in line for ours in (_TORCH, *_OURS))


def line_of(node: fx.Node) -> str:
    """The line outside PyTorch that called the node's operator, as torch.export notes it; else the
    module, by its path."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    files = [i for i, line in enumerate(lines) if line.startswith("File ") and not _is_inner(line)]
    if files:
        return " ".join(lines[files[-1] : files[-1] + 2])
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]).partition("@")[0].removeprefix("module").lstrip(".") if stack else ""
    return f"module {path}" if path else ""
