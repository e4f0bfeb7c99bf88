"""What options take: types of click for the values of a job."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

import click
from click.shell_completion import CompletionItem

from memplan.plain import did_you_mean
from memplan.shorthand import expand, parse_bytes
from memplan.wire import WireError, from_dict

__all__ = ["Count", "KeyValue", "Member", "Seconds", "Shorthand", "Size"]


class Shorthand(click.ParamType):  # type: ignore[type-arg]  # generic in later versions
    """A value in the same short form as in a job file."""

    def __init__(self, cls: type[Any], name: str) -> None:
        self.cls, self.name = cls, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An instance of the dataclass."""
        if isinstance(value, self.cls):
            return value
        try:
            return from_dict(self.cls, value, expand=expand)
        except WireError as error:
            said = [f"{at}: {text}" if at else text for at, text in error.violations]
            self.fail("; ".join(said), param, ctx)


class Member(click.ParamType):  # type: ignore[type-arg]
    """A member of an enum, by its text in any case, with `-` or `_`."""

    name = "NAME"

    def __init__(self, enum: type[StrEnum]) -> None:
        self.enum = enum
        self.choices = [m.value for m in enum if m.name != "UNSPECIFIED"]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The member."""
        text = str(value).lower().replace("_", "-")
        if text not in self.choices:
            hint = did_you_mean(text, self.choices)
            self.fail(f"there is no {value!r}{hint}; one of {', '.join(self.choices)}", param, ctx)
        return self.enum(text)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The members that begin with what is typed."""
        return [CompletionItem(c) for c in self.choices if c.startswith(incomplete)]


class KeyValue(click.ParamType):  # type: ignore[type-arg]
    """KEY=VALUE, the value as in YAML."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A pair of the key and plain data."""
        import yaml

        from memplan import _yaml

        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not KEY=VALUE, as in num_classes=10", param, ctx)
        try:
            return key, _yaml.load(text)
        except yaml.YAMLError:
            self.fail(f"the value of {key} is no YAML: {text!r}", param, ctx)


class Count(click.ParamType):  # type: ignore[type-arg]
    """How many there are of something that there must be."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A whole number of at least 1."""
        text = str(value)
        if not (text.isascii() and text.isdecimal() and text.strip("0")):
            self.fail(f"{text!r} is not a whole number of at least 1", param, ctx)
        return int(text)


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, `12GiB`."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Bytes."""
        try:
            return value if isinstance(value, int) else parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A time above 0, in seconds."""

    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A timedelta."""
        try:
            time = value if isinstance(value, timedelta) else timedelta(seconds=float(value))
        except (ValueError, OverflowError):
            time = timedelta()
        if time <= timedelta():
            self.fail(f"{value!r} is no number of seconds above 0", param, ctx)
        return time
