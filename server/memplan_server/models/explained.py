"""What an error of a library is about, for who described the job.

    try: module = auto_class.from_config(config)
    except Exception as error: said = explain(error)

    'NoneType' object is not subscriptable (DeepseekOcr2TextDecoderLayer.__init__ of transformers,
    modeling_deepseek_ocr2.py, line 1249). text_config.mlp_layer_types is null there: give it in
    config.

The class and the line are those of the innermost function that belongs to a model. Values that are
null there are followed back to the configuration's fields: those that the failing expression reads,
and those that what it reads was assigned from, in the same function or the same class.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from memplan_server.models.libraries import LIBRARIES

__all__ = ["explain", "first_line", "progress"]

_NOTHING = ast.Module(body=[], type_ignores=[])


def explain(error: BaseException, remedy: str = "") -> str:
    """What the error says, where in the library it arose, and which field to give, in sentences
    and without this machine's paths; `remedy` where no field is known to be at fault."""
    said = first_line(error)
    said = said if said.endswith("...") else said.removesuffix(".")
    place = _innermost(error)
    if place is None:
        return f"{said}. {remedy}".rstrip()
    code, library = place.tb_frame.f_code, _library(place.tb_frame)
    said += f" ({code.co_qualname} of {library}, {Path(code.co_filename).name}, "
    said += f"line {place.tb_lineno})."
    fields = sorted(set(_missing(error) or _null_fields(place)))
    if not fields:
        return f"{said} {remedy}".rstrip()
    are = "is null there: give it" if len(fields) == 1 else "are null there: give them"
    return f"{said} {' and '.join(fields)} {are} in config."


def first_line(error: BaseException) -> str:
    """First line of what an error says, without this machine's paths: at most 300 characters."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, KeyError):
        spoken = " " in text
        text = str(error.args[0]) if spoken else f"there is no {text}"
    line = re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+[\w.+-]*", "...", text.splitlines()[0])
    return line if len(line) <= 300 else f"{line[:297]}..."


def progress(error: BaseException) -> tuple[int, ...]:
    """How far a library got: of two executions of the same function, the greater got further."""
    return tuple(each.tb_lineno for each in _walk(error.__traceback__) if _library(each.tb_frame))


def _walk(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _library(frame: FrameType) -> str:
    """The library of models that a function belongs to; empty where it is none."""
    package = _module(frame).partition(".")[0]
    return package if package in LIBRARIES else ""


def _innermost(error: BaseException) -> TracebackType | None:
    """The innermost function of a model, or of a library where there is none of a model."""
    own = [each for each in _walk(error.__traceback__) if _library(each.tb_frame)]
    of_models = [each for each in own if _of_model(each.tb_frame)]
    return next(reversed(of_models or own), None)


def _of_model(frame: FrameType) -> bool:
    name = _module(frame)
    return ".models." in name and ".auto." not in name and "configuration_" not in name


def _is_configuration(value: Any) -> bool:
    return hasattr(value, "model_type") and hasattr(value, "to_dict")


def _spoken(config: Any, name: str) -> str:
    part = getattr(config, "base_config_key", "")
    return f"{part}.{name}" if part else name


def _missing(error: BaseException) -> list[str]:
    """The field that a configuration does not have, where that is the error."""
    if isinstance(error, AttributeError) and _is_configuration(error.obj):
        return [_spoken(error.obj, str(error.name))]
    return []


def _null_fields(place: TracebackType) -> list[str]:
    frame = place.tb_frame
    found: list[str] = []
    for node in _reads(_failing(place)):
        if _value(node, frame) is None:
            found += _origins(node, frame)
    return found


def _failing(place: TracebackType) -> ast.AST:
    """The expression that was being evaluated."""
    code = place.tb_frame.f_code
    first, last, start, end = list(code.co_positions())[place.tb_lasti // 2]
    if first is None or last is None:
        return _NOTHING
    lines = [linecache.getline(code.co_filename, n).encode() for n in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return _parsed(f"({b''.join(lines).decode()})")  # it may go on over several lines


def _parsed(source: str) -> ast.AST:
    """The source; nothing where it is not whole."""
    try:
        return ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return _NOTHING


def _reads(tree: ast.AST) -> Iterator[ast.Name | ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            yield node


def _value(node: ast.AST, frame: FrameType) -> Any:
    """What a name or an attribute is; `...` where it is something else."""
    if isinstance(node, ast.Name):
        return frame.f_locals.get(node.id, ...)
    if not isinstance(node, ast.Attribute):
        return ...
    return _value_in(_value(node.value, frame), node.attr)


def _origins(node: ast.Name | ast.Attribute, frame: FrameType) -> list[str]:
    """The configuration's field that a null value came from, if one did."""
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, frame)
        if _is_configuration(owner):
            return [_spoken(owner, node.attr)]
    found = (
        _null_field(read.attr, frame)
        for assigned in _assignments(node, frame)
        for read in ast.walk(assigned)
        if isinstance(read, ast.Attribute)
    )
    return [name for name in found if name][:1]


def _null_field(name: str, frame: FrameType) -> str:
    """The field `name` of a configuration that the function can see, where it is null there."""
    seen = _seen(frame)
    null = (config for config in seen if _value_in(config, name) is None)
    return next((_spoken(config, name) for config in null), "" if seen else name)


def _value_in(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name, ...)
    except Exception:  # some properties of configurations raise
        return ...


def _assignments(node: ast.Name | ast.Attribute, frame: FrameType) -> Iterator[ast.AST]:
    """What the name, or the attribute of `self`, is assigned in its function or its class."""
    holder: Any = frame.f_code
    if isinstance(node, ast.Attribute):
        holder = type(frame.f_locals.get("self"))
    try:
        tree = _parsed(inspect.getsource(holder))
    except (OSError, TypeError):
        return
    wanted = ast.unparse(node)
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.Assign):
            continue
        if wanted in map(ast.unparse, statement.targets):
            yield statement.value


def _seen(frame: FrameType) -> list[Any]:
    """The configurations that a function can see, and those nested in them."""
    own = getattr(frame.f_locals.get("self"), "config", None)
    seen = [value for value in (own, *frame.f_locals.values()) if _is_configuration(value)]
    for config in seen:
        nested = (getattr(config, name, None) for name in getattr(config, "sub_configs", ()))
        seen += [value for value in nested if _is_configuration(value)]
    return seen
