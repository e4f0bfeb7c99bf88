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
    try:
        missing, fields = _missing(error), sorted(set(_null_fields(error)))
    except Exception:  # what a library's objects do when asked must not hide the error itself
        missing, fields = "", []
    if missing:
        return f"{said} The configuration has no {missing}: give a whole one, with it, in config."
    if not fields:
        return f"{said} {remedy}".rstrip()
    are = "is null there: give it" if len(fields) == 1 else "are null there: give them"
    return f"{said} {' and '.join(fields)} {are} in config."


def first_line(error: BaseException) -> str:
    """First line of what an error says, and the next where it ends in a colon: at most 300
    characters, without this machine's paths."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, KeyError):
        spoken = " " in text
        text = str(error.args[0]) if spoken else f"there is no {text}"
    first, *more = filter(None, map(str.strip, text.splitlines()))
    if first.endswith(":") and more:  # it announces what is wrong, and the next line says it
        first = f"{first} {more[0]}"
    line = re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+[\w.+-]*", "...", first)
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
    return next(reversed(_of_models(error) or own), None)


def _of_models(error: BaseException) -> list[TracebackType]:
    return [each for each in _walk(error.__traceback__) if _of_model(each.tb_frame)]


def _of_model(frame: FrameType) -> bool:
    name = _module(frame) if _library(frame) else ""
    return ".models." in name and ".auto." not in name and "configuration_" not in name


def _is_configuration(value: Any) -> bool:
    return hasattr(value, "model_type") and hasattr(value, "to_dict")


def _spoken(error: BaseException, config: Any, name: str) -> str:
    """The field with the names of the parts that it is in: `text_config.num_experts`."""
    for each in _walk(error.__traceback__):  # outermost first: it sees the whole configuration
        for root, path in _seen(each.tb_frame):
            if root is config:
                return ".".join((*path, name))
    return name


def _missing(error: BaseException) -> str:
    """The field that a configuration does not have, where that is the error."""
    if isinstance(error, AttributeError) and _is_configuration(error.obj):
        return _spoken(error, error.obj, str(error.name))
    return ""


def _null_fields(error: BaseException) -> list[str]:
    """Fields that are null in what was being evaluated; where that is an argument, in the call."""
    for place in reversed(_of_models(error)):
        frame = place.tb_frame
        null = [node for node in _reads(_failing(place)) if _value(node, frame) is None]
        found = [name for node in null for name in _origins(error, node, frame)]
        arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        passed_on = any(isinstance(node, ast.Name) and node.id in arguments for node in null)
        if found or not passed_on:
            return found
    return []


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


def _origins(error: BaseException, node: ast.Name | ast.Attribute, frame: FrameType) -> list[str]:
    """The configuration's field that a null value came from, if one did."""
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, frame)
        if _is_configuration(owner):
            return [_spoken(error, owner, node.attr)]
    mentioned = (
        _mentioned(part) for value in _assignments(node, frame) for part in ast.walk(value)
    )
    found = (_null_field(error, name, frame) for name in mentioned if name)
    return [name for name in found if name][:1]


def _mentioned(part: ast.AST) -> str:
    """A name that may be a field's: `config.head_dim` or `getattr(config, "head_dim")`."""
    if isinstance(part, ast.Constant):
        return part.value if isinstance(part.value, str) else ""
    return part.attr if isinstance(part, ast.Attribute) else ""


def _null_field(error: BaseException, name: str, frame: FrameType) -> str:
    """The field `name` of a configuration that the function can see, where it is null there."""
    seen = [config for config, _ in _seen(frame)]
    null = (config for config in seen if _value_in(config, name) is None)
    return next((_spoken(error, config, name) for config in null), "" if seen else name)


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


def _seen(frame: FrameType) -> list[tuple[Any, tuple[str, ...]]]:
    """The configurations that a function can see and those nested in them, each with the names of
    the parts that lead to it."""
    own = getattr(frame.f_locals.get("self"), "config", None)
    visible = (own, *frame.f_locals.values())
    seen: list[tuple[Any, tuple[str, ...]]] = [(c, ()) for c in visible if _is_configuration(c)]
    for config, path in seen:
        for name in getattr(config, "sub_configs", ()):
            nested = getattr(config, name, None)
            if _is_configuration(nested):
                seen.append((nested, (*path, name)))
    return seen
