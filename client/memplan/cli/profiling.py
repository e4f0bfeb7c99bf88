"""The commands about measured profiles."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import click

from memplan.cli import exits
from memplan.cli.asking import ask_about_job, ask_server, show
from memplan.cli.options import (
    format_option,
    job_options,
    profile_filter_options,
    profile_options,
    profile_server_options,
    server_options,
)
from memplan.cli.output import emit, note, waiting, write
from memplan.cli.progress import watching
from memplan.cli.request import Given
from memplan.client import Client
from memplan.errors import MemplanError, ServerError
from memplan.types import DeviceType, MeasuredProfile, MemoryEstimate
from memplan.wire import to_dict

__all__ = ["profile", "profiles"]


@click.command(epilog=exits.HELP, short_help="Run a few steps of a job, and say what they took.")
@job_options
@profile_options
@format_option
@profile_server_options
def profile(**options: Any) -> int:
    """Really run a few steps of a job on the server, and say what they took.

    \b
    memplan profile torchvision/resnet50 --batch-size 64 --optimizer adam
    memplan profile -f job.yaml --device cuda --memory-limit 12GiB --wait

    The GPUs in a job file are what to plan for: where it is measured, --gpu says. Interrupting the
    command stops the job on the server. Exits with 3 when it ran out of memory.
    """

    def ask(client: Client, given: Given) -> int:
        found = _measure(client, given, options)
        estimate = _estimate(client, given, found, options["gpu_type"] or "")
        data = {
            "profile": to_dict(found),
            "estimate": None if estimate is None else to_dict(estimate),
        }
        show(options, given, data, lambda _, width: _text().profile(found, estimate, width))
        return exits.DOES_NOT_FIT if found.out_of_memory else exits.FITS

    return ask_about_job(options, ask, {"gpus": "--gpu"})


def _measure(client: Client, given: Given, options: dict[str, Any]) -> MeasuredProfile:
    """Follow the stream to its end. Leaving early, by an interrupt for instance, cancels it."""
    stream = client.profile_memory(
        given.job,
        step_count=options["steps"] or 0,
        memory_limit_bytes=options["memory_limit"] or 0,
        time_limit=options["time_limit"],
        device_type=options["device"] or DeviceType.UNSPECIFIED,
        gpu_type=options["gpu_type"] or "",
        warmup_step_count=options["warmup_steps"] or 0,
        wait_for_gpu=options["wait"],
        find_batch_size=options["find_batch_size"],
        timeout=options["timeout"],
    )
    found = None
    with watching() as progressed, closing(stream) as events:
        for event in events:
            if event.progress is not None:
                progressed(event.progress)
            found = event.profile or found
    if found is None:
        raise ServerError("The server measured nothing and did not say why.")
    return found


def _estimate(
    client: Client, given: Given, found: MeasuredProfile, gpu_type: str
) -> MemoryEstimate | None:
    """The estimate to put beside a profile; None where there is none for that device."""
    if found.device_type is DeviceType.CUDA and not found.gpu_type:
        return None
    # On the CPU the batch may be smaller than the job's.
    job = replace(given.job, micro_batch_size=found.micro_batch_size)
    try:
        with waiting("estimating"):
            answer = client.estimate_memory(
                job,
                gpu_type=found.gpu_type or gpu_type,
                confidence=given.request.confidence,
            )
    except MemplanError as error:  # what was measured is worth showing all the same
        click.echo(f"memplan: there is no estimate to compare with: {error.message}", err=True)
        return None
    return answer.estimate


@click.group(epilog=exits.HELP)
def profiles() -> None:
    """What was measured before: stored profiles."""


@profiles.command("list")
@profile_filter_options
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="Most."
)
@format_option
@server_options
def list_profiles(limit: int, **options: Any) -> int:
    """The stored profiles, newest first."""

    def ask(client: Client) -> int:
        with waiting("listing"):
            found = list(islice(_stored(client, options, min(limit, 1000)), limit))
        if not found:
            note("no such profile is stored; `memplan profile` measures a job.")
        data = {"profiles": [to_dict(one) for one in found]}
        emit(options["style"], data, lambda width: _text().overview(found, width))
        return exits.FITS

    return ask_server(options, ask)


@profiles.command("show")
@click.argument("profile_id", metavar="PROFILE")
@format_option
@server_options
def show_profile(profile_id: str, **options: Any) -> int:
    """One profile; as JSON or YAML with memory over the run."""

    def ask(client: Client) -> int:
        found = client.get_profile(profile_id)
        emit(options["style"], to_dict(found), lambda width: _text().page(found, width))
        return exits.FITS

    return ask_server(options, ask)


@profiles.command("export")
@profile_filter_options
@click.option("--curves", is_flag=True, help="With memory over each run.")
@server_options
def export_profiles(curves: bool, **options: Any) -> int:
    """The stored profiles as JSON lines, newest first."""

    def ask(client: Client) -> int:
        for one in _stored(client, options, 1000):
            full = client.get_profile(one.profile_id) if curves else one
            write(json.dumps(to_dict(full), ensure_ascii=False) + "\n")
        return exits.FITS

    return ask_server(options, ask)


def _stored(client: Client, options: dict[str, Any], page_size: int) -> Iterable[MeasuredProfile]:
    return client.list_profiles(
        gpu_type=options["gpu_type"] or "",
        job_digest=options["job_digest"] or "",
        page_size=page_size,
        timeout=options["timeout"],
    )


def _text() -> Any:
    """The module that renders profiles: rich is imported when it is needed."""
    from memplan.cli import measured

    return measured
