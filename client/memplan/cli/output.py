"""Answers to stdout, in the format asked for. Nothing else is ever printed there."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["emit", "note", "waiting", "write"]


def write(text: str) -> None:
    """Print text. A reader that has gone away (`| head`) is no error, nor is a closed stdout."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more when it exits: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Say something beside the answer, on stderr."""
    sys.stderr.write(f"memplan: {text}\n")


def emit(style: str, data: Any, render: Callable[[int], Any]) -> None:
    """Print plain `data` as JSON or YAML, or what `render(width)` makes of it as text."""
    if style == "json":
        write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    elif style == "yaml":
        from memplan import _yaml

        write(_yaml.dump(data))
    else:
        _print_text(render)


def _print_text(render: Callable[[int], Any]) -> None:
    from memplan.cli.layout import console

    out = console()
    with out.capture() as captured:
        out.print(render(out.width))
    write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show that something is under way, on stderr and only where somebody sees it."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, markup=False).status(f"{text} ..."):
        yield
