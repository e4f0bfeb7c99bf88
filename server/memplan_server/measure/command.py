"""`memplan-server compare`: a job run on this machine's GPU against its simulation.

Needs the extra `cli`: a job is given as to `memplan plan`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from memplan.cli.options import job_options
from memplan.cli.request import assemble
from memplan.errors import JobFileError
from memplan.plain import to_dict
from memplan.types import EstimateMemoryRequest, TrainingJob
from memplan_server.errors import InvalidJob, MemplanError, UnknownName
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure.compare import Comparison, NoCudaDevice, compare
from memplan_server.measure.text import report
from memplan_server.validation import check

__all__ = ["compare_command", "main"]

COMPARED, FAILURE, BAD_REQUEST, NO_CUDA = 0, 1, 2, 3
_JOB_FILES = (".yaml", ".yml", ".json")


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    try:
        result = compare_command.main(
            list(arguments), "memplan-server compare", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return BAD_REQUEST
    except click.Abort:
        return FAILURE
    return int(result or COMPARED)


@click.command(no_args_is_help=True)
@job_options
@click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    default="cuda",
    show_default=True,
    help="Where to run the job: cuda is the first GPU. On the CPU only tensors are compared.",
)
@click.option(
    "--gpu",
    "gpu_type",
    default="",
    metavar="NAME",
    help="GPU type to simulate. Default: the one the job runs on; nvidia-a100-80gb for the CPU.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compare_command(device: str, gpu_type: str, as_json: bool, **options: Any) -> int:
    """Run two training steps of a job and compare each allocation with the simulated ones.

    MODEL is a model's name, or a job file (.yaml, .json); options are those of `memplan plan`.

    \b
    Exit codes:
      0  compared, whatever the outcome
      1  the job could not be run: it ran out of memory, or something else went wrong
      2  the request is wrong: usage, a job file, an unknown model or GPU
      3  there is no CUDA GPU
    """
    if device == "cpu" and not gpu_type:
        gpu_type = "nvidia-a100-80gb"
    try:
        job = _job(options)
        compared = compare(job, GpuCatalog.load(), device_type=device, gpu_type=gpu_type)
    except NoCudaDevice as error:
        return _complaint(error, NO_CUDA)
    except (JobFileError, InvalidJob, UnknownName) as error:
        return _complaint(error, BAD_REQUEST)
    except MemplanError as error:
        return _complaint(error, FAILURE)
    click.echo(_as_json(job, compared) if as_json else report(compared))
    return COMPARED


def _as_json(job: TrainingJob, compared: Comparison) -> str:
    return json.dumps({"job": to_dict(job, defaults=False), **asdict(compared)})


def _job(options: dict[str, Any]) -> TrainingJob:
    """The job described, checked, with its defaults written out."""
    model = options.get("model") or ""
    if Path(model).suffix in _JOB_FILES and not options.get("file"):
        options = {**options, "model": None, "file": model}
    job = assemble(options).request.job
    check(EstimateMemoryRequest(job=job))
    return normalize(job)


def _complaint(error: Exception, code: int) -> int:
    sys.stderr.write(f"memplan-server: {error}\n")
    return code
