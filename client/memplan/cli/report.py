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


_LISTINGS = {"GPU type": "memplan gpus SEARCH", "profile": "memplan profiles list"}
"""Kind of a name that is not known: the command that lists those that are."""
_HUB = "For one of the Hugging Face Hub give its config.json: memplan plan --config config.json"
_NO_HUB = ("torchvision/", "timm/")
_NO_TLS_THERE = "WRONG_VERSION_NUMBER"
_NOT_TRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification")
"""What gRPC says where the server does not speak TLS, and where its certificate is not trusted."""


def report(error: MemplanError, name_of: Callable[[str], str], options: dict[str, Any]) -> None:
    """Print the error. `name_of` says what the user calls a field of the request."""
    click.echo(f"memplan: {_headline(error, options)}", err=True)
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


def _headline(error: MemplanError, options: dict[str, Any]) -> str:
    if isinstance(error, JobFileError):
        return error.message.partition("\n")[0]
    if isinstance(error, InvalidRequestError) and error.violations:
        count = len(error.violations)
        return f"the request has {'a mistake' if count == 1 else f'{count} mistakes'}:"
    if _unreached(error, options):
        return f"the server at {options['server']} cannot be reached: {error.message}"
    if isinstance(error, DeadlineExceededError) and error.message == "Deadline Exceeded":
        return f"there is no answer after {options['timeout']:g} seconds."  # gRPC's own words
    return error.message


def _unreached(error: MemplanError, options: dict[str, Any]) -> bool:
    """Whether it is the server named that does not answer."""
    return isinstance(error, UnavailableError) and not error.answered and bool(options["server"])


def _remedies(error: MemplanError, options: dict[str, Any]) -> list[str]:
    if isinstance(error, UnknownNameError):
        listing = _LISTINGS.get(error.kind, "memplan models SEARCH")
        hub = [_HUB] if error.kind == "model" and not error.name.startswith(_NO_HUB) else []
        return [f"`{listing}` lists what can be named.", *hub]
    if isinstance(error, DeadlineExceededError):
        limited = "limit" in error.message  # the server's own, or a profile's: it says what to do
        return [] if limited else ["--timeout SECONDS waits longer."]
    if isinstance(error, LimitExceededError) and error.retry_after is not None:
        return [f"Try again in {error.retry_after:g} seconds."]
    if isinstance(error, InvalidRequestError):
        return [
            f"`memplan models {options['model']}` lists those with it in their names."
            for violation in error.violations
            if violation.field == "job.model.catalog.name" and "/" not in (options["model"] or "/")
        ]
    if _unreached(error, options):
        return [_to_reach_it(error.message, options)]
    if isinstance(error, ServerError) and error.incident_id and not options.get("server"):
        return ["The log is embedded.log in the data directory, ~/.cache/memplan by default."]
    return []


def _to_reach_it(said: str, options: dict[str, Any]) -> str:
    """What to do where the server named does not answer, by what gRPC says of it."""
    if _NO_TLS_THERE in said:
        return "It does not speak TLS: leave out --tls, --tls-ca, --tls-cert and --tls-key."
    if any(words in said for words in _NOT_TRUSTED):
        return (
            "Its certificate is not trusted: name its authority with --tls-ca, and with "
            "--tls-server-name what it is made out to where that is another name."
        )
    from_environment = os.environ.get("MEMPLAN_SERVER") == options["server"]
    named = "MEMPLAN_SERVER" if from_environment else "--server"
    encrypted = any(options.get(name) for name in ("tls", "tls_ca", "tls_cert"))
    # A server that expects TLS only hangs up: gRPC's words do not tell it from one that is away.
    or_tls = "" if encrypted else "give --tls or --tls-ca if it speaks TLS, "
    return (
        f"Start one there with `memplan-server`, {or_tls}or leave {named} out: then the command "
        "starts one for itself."
    )
