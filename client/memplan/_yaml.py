"""YAML 1.2's plain scalars for PyYAML, which reads those of 1.1.

    load("precision: no")       # {"precision": "no"}, not {"precision": False}
    dump({"a": "1e-2"})         # "a: '1e-2'\n"

In 1.1, `no` and `on` are truth values, `12:30` is 750, `010` is 8 and `1e-2` is text. Here, as in
1.2 (core schema), only `true` and `false` are truth values, `1e-2` is a number, `010` is 10 and the
rest is text. A key given twice is an error. Both classes are PyYAML's safe ones: they make plain
data only.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["dump", "load"]

_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
)
"""Tag, pattern and first characters of each kind of plain scalar; the first that matches counts."""


class _Loader(yaml.SafeLoader):
    """Safe, with YAML 1.2's plain scalars, each key once."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in SafeLoader; a key that comes twice is an error."""
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != f"{_TAG}merge":
                if key_node.value in seen:
                    problem = f"the key {key_node.value!r} is there twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe; quotes text that YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Equal parts are written out: no anchors."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Line breaks of Unicode in quotes that escape them: in others they are read as spaces."""
    style = '"' if any(c in text for c in "\x85\u2028\u2029") else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.lower()
    try:
        return int(text, 0 if text.startswith(("0o", "0x")) else 10)
    except ValueError as error:  # tagged !!int, or more digits than Python converts
        raise _no_number(node) from error


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    try:
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError as error:
        raise _no_number(node) from error


def _no_number(node: yaml.ScalarNode) -> yaml.MarkedYAMLError:
    problem = f"{node.value[:20]!r} cannot be read as a number"
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


for _name, _pattern, _first in _CORE:
    _matcher = re.compile(rf"(?:{_pattern})\Z")
    for _character in _first:
        _Loader.yaml_implicit_resolvers.setdefault(_character.strip("\0"), []).append(
            (_TAG + _name, _matcher)
        )
    _Dumper.add_implicit_resolver(_TAG + _name, _matcher, [c.strip("\0") for c in _first])
_Dumper.add_representer(str, _represent_text)
_Loader.add_constructor(f"{_TAG}int", _construct_int)
_Loader.add_constructor(f"{_TAG}float", _construct_float)


def load(text: str) -> Any:
    """The one document in `text`. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None


def dump(data: Any) -> str:
    """Plain data as a document, keys in the order given."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
