"""What the commands have in common: from options to a request, to a server, to an exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import click

from memplan import jobfile
from memplan.cli import exits
from memplan.cli.output import emit, write
from memplan.cli.report import report
from memplan.cli.request import Given, assemble
from memplan.client import Client
from memplan.errors import MemplanError
from memplan.types import GpuTarget

__all__ = ["ask_about_job", "ask_server", "one_gpu", "rendering", "show"]

_OPTIONS = {
    "filter": "SEARCH",
    "gpu_type": "--gpu",
    "job_digest": "--job",
    "profile_id": "PROFILE",
}
"""What the fields of requests without a job are called on the command line."""


def ask_about_job(
    options: dict[str, Any],
    ask: Callable[[Client, Given], int],
    flags: Mapping[str, str] | None = None,
) -> int:
    """Make the request; print it for --dry-run, else let `ask` answer it. Returns the exit code.

    `flags` names the options of fields that the command does not take from a job file.
    """
    try:
        given = assemble(options)
        given = replace(given, flags={**given.flags, **(flags or {})})
    except MemplanError as error:
        report(error, str, options)
        return exits.for_error(error)
    if options["dry_run"]:
        write(jobfile.dump(given.request, style="json" if options["style"] == "json" else "yaml"))
        return exits.FITS
    return ask_server(options, lambda client: ask(client, given), given)


def ask_server(
    options: dict[str, Any], ask: Callable[[Client], int], given: Given | None = None
) -> int:
    """Let `ask` talk to the server; an error that it raises is printed. Returns the exit code."""
    from memplan.cli.server import connected

    try:
        with connected(options) as client:
            return ask(client)
    except MemplanError as error:
        report(error, given.name_of if given else _option_name, options)
        return exits.for_error(error)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _option_name(path: str) -> str:
    return _OPTIONS.get(path, path)


def one_gpu(given: Given) -> GpuTarget | None:
    """The GPU asked about, if any. Raises click.UsageError for several."""
    if len(given.request.gpus) > 1:
        raise click.UsageError("This command is about one GPU type: give --gpu once.")
    return given.request.gpus[0] if given.request.gpus else None


def show(
    options: dict[str, Any], given: Given, data: Any, render: Callable[[Any, int], Any]
) -> None:
    """Print an answer about a job: `data`, or below the job's title what `render` makes of it."""

    def with_title(width: int) -> Any:
        from rich.console import Group

        from memplan.cli.layout import job_title

        return Group(job_title(given.request.job), render(rendering(), width))

    emit(options["style"], data, with_title)


def rendering() -> Any:
    """The module that renders text: rich is imported when it is needed."""
    from memplan.cli import text

    return text
