"""Errors as a short block on stderr: what is wrong, where, and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from memplan.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    JobFileError,
    LimitExceededError,
    MemplanError,
    ServerError,
    UnavailableError,
    UnknownNameError,
)

__all__ = ["report"]


def report(error: MemplanError, name_of: Callable[[str], str], options: dict[str, Any]) -> None:
    """Print the error. `name_of` says what the user calls a field of the request."""
    click.echo(f"memplan: {_headline(error)}", err=True)
    if isinstance(error, InvalidRequestError):
        for violation in error.violations:
            named = violation.field
            if named and not isinstance(error, JobFileError):
                named = name_of(named)
            click.echo(
                f"  {named}: {violation.description}" if named else f"  {violation}", err=True
            )
    for line in _remedies(error, options):
        click.echo(f"  {line}", err=True)


def _headline(error: MemplanError) -> str:
    if isinstance(error, InvalidRequestError) and error.violations:
        if isinstance(error, JobFileError):
            return error.message.partition("\n")[0]
        count = len(error.violations)
        return f"the request has {'a mistake' if count == 1 else f'{count} mistakes'}:"
    return error.message


def _remedies(error: MemplanError, options: dict[str, Any]) -> list[str]:
    if isinstance(error, UnknownNameError):
        listing = "memplan gpus" if "GPU" in error.kind else "memplan models"
        return [f"`{listing} SEARCH` lists what can be named."]
    if isinstance(error, DeadlineExceededError):
        return [f"--timeout gives more time than {options.get('timeout', 0):g} seconds."]
    if isinstance(error, LimitExceededError) and error.retry_after is not None:
        return [f"Try again in {error.retry_after:g} seconds."]
    if isinstance(error, UnavailableError) and options.get("server"):
        named = "MEMPLAN_SERVER" if os.environ.get("MEMPLAN_SERVER") else "--server"
        return [
            f"No server answers at {options['server']} (from {named}). Start one with "
            "`memplan-server`, or name none: then one is started for the command."
        ]
    if isinstance(error, ServerError) and error.incident_id and not options.get("server"):
        return ["The log is embedded.log in the data directory, ~/.cache/memplan by default."]
    return []
