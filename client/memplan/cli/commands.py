"""The commands."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, NoReturn

import click

from memplan.cli import exits
from memplan.cli.asking import ask_about_job, ask_server, one_gpu, rendering, show
from memplan.cli.kubernetes import kueue, webhook
from memplan.cli.options import (
    format_option,
    gpu_options,
    job_options,
    measure_option,
    plan_options,
    scheduler_option,
    server_options,
)
from memplan.cli.output import emit, note, waiting, write
from memplan.cli.profiling import profile, profiles
from memplan.cli.request import Given
from memplan.cli.slurm import slurm
from memplan.cli.values import Count
from memplan.client import Client
from memplan.types import GpuTarget
from memplan.wire import to_dict

__all__ = ["cli"]

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "diffusers")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to stdout fails with, where its disk is full or gone."""
_PACKAGES = ("memplan", "grpcio", "protobuf", *_LIBRARIES)


class _Group(click.Group):
    """Turns every error into a few lines on stderr and an exit code, never a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """As in click; always exits."""
        streams: list[Any] = [sys.stdout, sys.stderr]
        for stream in streams:
            with suppress(AttributeError):
                stream.reconfigure(errors="replace")
        sys.exit(self._run(*args, **{**kwargs, "standalone_mode": False}))

    def _run(self, *args: Any, **kwargs: Any) -> int:
        try:
            code: int | None = super().main(*args, **kwargs)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("memplan: interrupted", err=True)
            return exits.INTERRUPTED
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
                click.echo(f"memplan: the answer cannot be written: {error.strerror}", err=True)
                return exits.FAILURE
            if os.environ.get("MEMPLAN_TRACEBACK"):
                raise
            click.echo(f"memplan: a defect: {type(error).__name__}: {error}", err=True)
            click.echo("  Set MEMPLAN_TRACEBACK=1 to see where, and report it.", err=True)
            return exits.FAILURE
        return code or 0


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=exits.HELP
)
def cli() -> None:
    """How much GPU memory a training job takes, where it fits, and how to make it fit.

    The job is described, not run: no GPU and no data are needed. Results go to stdout and nothing
    else does. `memplan plan --help` explains the options that describe a job.
    """
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminated)


cli.add_command(profile)
cli.add_command(profiles)
cli.add_command(slurm)
cli.add_command(webhook)
cli.add_command(kueue)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Leave through the context managers, so that an embedded server takes its workers along."""
    sys.exit(128 + number)


@cli.command(
    epilog=exits.HELP, short_help="All about a job: memory, GPUs, batch size, accumulation."
)
@job_options
@gpu_options
@plan_options
@measure_option
@scheduler_option
@format_option
@server_options
def plan(**options: Any) -> int:
    """Everything about a job: memory, placement, batch sizes and accumulation.

    \b
    memplan plan torchvision/resnet50 --input 3x224x224 --batch-size 64 \\
        --optimizer adam --gpu nvidia-t4 --global-batch-size 1024
    memplan plan -f job.yaml --format json
    memplan plan -f job.yaml --for slurm
    memplan plan train.py:make_model --input 3x224x224 --gpu nvidia-t4

    A function of a file of yours makes a torch.nn.Module; it is executed here, and neither code nor
    weights are sent.

    Without --gpu it is about every GPU type of the catalog. The estimate, the measurement and the
    accumulation plan are for the first one.
    """

    def ask(client: Client, given: Given) -> int:
        request = given.request
        budget = request.measurement_budget
        # The time that the answer may take does not shrink by what is spent on measuring.
        options["timeout"] += budget.total_seconds() if budget is not None else 0
        with waiting("planning" if budget is None else "planning and measuring"):
            answer = client.plan_job(
                request.job,
                request.gpus,
                global_batch_size=request.global_batch_size,
                data_parallel_size=request.data_parallel_size,
                headroom_fraction=request.headroom_fraction,
                confidence=request.confidence,
                measurement_budget=budget,
                scheduler=request.scheduler,
                timeout=options["timeout"],
            )
        if answer.scheduler_request and options["style"] == "text":
            write(answer.scheduler_request)
            return exits.for_placements(answer.placements)
        data = to_dict(answer)
        data.setdefault("accumulation", None)
        data.setdefault("profile", None)
        show(options, given, data, lambda text, width: text.plan(answer, width))
        return exits.for_placements(answer.placements)

    return ask_about_job(options, ask)


@cli.command(epilog=exits.HELP)
@job_options
@gpu_options
@format_option
@server_options
def estimate(**options: Any) -> int:
    """The memory a job takes on one GPU type.

    \b
    memplan estimate transformers/bert --input 512:int64 --batch-size 8 \\
        --optimizer adamw --precision amp-bf16 --gpu nvidia-t4

    Without --gpu it is about nvidia-a100-80gb. Exits with 0 when there is an answer; `memplan plan`
    says whether it fits.
    """

    def ask(client: Client, given: Given) -> int:
        gpu = one_gpu(given) or GpuTarget()
        if gpu.free_bytes is not None:
            raise click.UsageError("An estimate does not depend on free memory: see memplan plan.")
        with waiting("estimating"):
            answer = client.estimate_memory(
                given.job,
                gpu_type=gpu.gpu_type,
                confidence=given.request.confidence,
            )
        data = to_dict(answer.estimate)
        data["profile"] = None if answer.profile is None else to_dict(answer.profile)
        show(options, given, data, lambda text, width: text.estimate(answer, width))
        return exits.FITS

    return ask_about_job(options, ask)


@cli.command("batch-size", epilog=exits.HELP)
@job_options
@gpu_options
@click.option("--multiple-of", type=Count(), metavar="N", help="A multiple of it. Default: 8.")
@click.option("--max-batch-size", type=Count(), metavar="N", help="No batch above this.")
@format_option
@server_options
def batch_size(**options: Any) -> int:
    """The largest and the recommended batch for each GPU.

    \b
    memplan batch-size timm/vit_base_patch16_224 --precision amp-bf16 --gpu nvidia-l4

    Without --gpu it is about every GPU type of the catalog.
    """

    def ask(client: Client, given: Given) -> int:
        with waiting("searching"):
            answers = client.recommend_batch_size(
                given.job,
                given.request.gpus,
                headroom_fraction=given.request.headroom_fraction,
                confidence=given.request.confidence,
                multiple_of=options["multiple_of"] or 0,
                max_batch_size=options["max_batch_size"] or 0,
            )
        data = {"batch_sizes": [to_dict(answer) for answer in answers]}
        show(options, given, data, lambda text, width: text.batch_sizes(answers, width))
        return exits.for_batch_sizes(answers)

    return ask_about_job(options, ask)


@cli.command(epilog=exits.HELP, short_help="How to reach a global batch size on one GPU type.")
@job_options
@gpu_options
@plan_options
@format_option
@server_options
def accumulate(**options: Any) -> int:
    """Micro-batch size and accumulation steps that reach a global batch on one GPU type.

    \b
    memplan accumulate torchvision/resnet50 --gpu nvidia-t4 --global-batch-size 1024

    A --batch-size is the largest micro-batch that may be used.
    """

    def ask(client: Client, given: Given) -> int:
        gpu = one_gpu(given)
        if gpu is None:
            raise click.UsageError("Missing option '--gpu'.")
        request = given.request
        with waiting("planning"):
            answer = client.plan_accumulation(
                request.job,
                gpu,
                global_batch_size=request.global_batch_size,
                data_parallel_size=request.data_parallel_size,
                headroom_fraction=request.headroom_fraction,
                confidence=request.confidence,
            )
        show(options, given, to_dict(answer), lambda text, width: text.accumulation(answer))
        return exits.FITS if answer.feasible else exits.DOES_NOT_FIT

    return ask_about_job(options, ask)


@cli.command()
@click.argument("search", default="")
@format_option
@server_options
def gpus(search: str, **options: Any) -> int:
    """The GPU catalog; SEARCH is part of a name or alias."""

    def ask(client: Client) -> int:
        found = list(client.list_gpu_types(search))
        data = {"gpu_types": [to_dict(gpu) for gpu in found]}
        if not found:
            note(f"no GPU type has {search!r} in its name; `memplan gpus` lists all.")
        emit(options["style"], data, lambda width: rendering().gpu_types(found, width))
        return exits.FITS

    return ask_server(options, ask)


@cli.command(short_help="The models that can be named.")
@click.argument("search", default="")
@format_option
@server_options
def models(search: str, **options: Any) -> int:
    """The models that can be named, one a line; SEARCH is part of a name."""

    def ask(client: Client) -> int:
        with waiting("listing"):
            found = list(client.list_models(search, page_size=1000))
        if not found:
            note(f"no model has {search!r} in its name; `memplan models` lists all.")
        if options["style"] == "text":
            write("".join(f"{model.name}\n" for model in found))
        else:
            data = {"models": [to_dict(model) for model in found]}
            emit(options["style"], data, lambda width: None)
        return exits.FITS

    return ask_server(options, ask)


@cli.command("version", short_help="The versions of memplan and its libraries.")
@format_option
def show_version(style: str) -> int:
    """The versions of memplan and of the libraries that its answers depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    if style == "text":
        write(
            "".join(
                f"{name} {found[name]}\n"
                for name in ["memplan", *sorted(found.keys() - {"memplan"})]
            )
        )
    else:
        emit(style, found, lambda width: None)
    return exits.FITS
