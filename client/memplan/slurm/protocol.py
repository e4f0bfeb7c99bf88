"""Lines between the plugins and the helper.

A line is words between single spaces, each percent-encoded: letters, digits, `_`, `.` and `-` stay,
every other byte is `%XX`. So a word needs no quoting in a shell, whatever it says. A request is one
line, a verb and then name, value, name, value; an answer is several, the last of them `end`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote

__all__ = ["END", "ProtocolError", "line", "parse_request"]

END = "end"
_WORD = re.compile(r"(?:[A-Za-z0-9_.-]|%[0-9A-F]{2})+")
_NAME = re.compile(r"[a-z_]{1,30}")


class ProtocolError(ValueError):
    """A line that no plugin of ours sends."""


def line(words: Iterable[str]) -> bytes:
    """The words as a line; an empty one is `%`, which no byte is encoded as."""
    return " ".join(_encoded(word) for word in words).encode("ascii") + b"\n"


def parse_request(data: bytes) -> tuple[str, Mapping[str, str]]:
    """Verb and fields of a request. Raises ProtocolError."""
    words = [_decoded(word) for word in data.decode("ascii", "replace").rstrip("\n").split(" ")]
    verb, fields = words[0], words[1:]
    if len(fields) % 2 or not all(_NAME.fullmatch(name) for name in fields[::2]):
        raise ProtocolError("a request is a verb, and then names and values")
    return verb, _paired(fields)


def _paired(fields: Sequence[str]) -> dict[str, str]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _encoded(word: str) -> str:
    # `~` is the one sign that quote() lets pass and the plugins do not.
    return quote(word, safe="", errors="replace").replace("~", "%7E") or "%"


def _decoded(word: str) -> str:
    if word == "%":
        return ""
    if not _WORD.fullmatch(word):
        raise ProtocolError(f"not a word: {word[:40]!r}")
    return unquote(word, errors="replace")
