"""Options of the commands: what they are called, take and mean."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from memplan.cli.values import Count, KeyValue, Member, Seconds, Shorthand, Size
from memplan.endpoint import VARIABLES
from memplan.types import (
    AllocatorSettings,
    DataParallelStrategy,
    DeviceType,
    GpuTarget,
    GradientClipping,
    InputTensor,
    Loss,
    MemoryFormat,
    OptimizerImplementation,
    OptimizerType,
    Padding,
    Precision,
    Routing,
    Scheduler,
    ZeroGrad,
)

__all__ = [
    "connection_options",
    "format_option",
    "gpu_options",
    "job_options",
    "measure_option",
    "plan_options",
    "profile_filter_options",
    "profile_options",
    "profile_server_options",
    "scheduler_option",
    "server_options",
]

C = TypeVar("C", bound=Callable[..., Any])
Decorator = Callable[[C], C]


def _flag(name: str, text: str) -> Decorator[Any]:
    return click.option(f"--{name}/--no-{name}", default=None, help=text)


def _member(name: str, enum: type[StrEnum], text: str) -> Decorator[Any]:
    return click.option(f"--{name}", type=Member(enum), help=text)


def _choices(enum: type[StrEnum]) -> str:
    return ", ".join(m.value for m in enum if m.name != "UNSPECIFIED")


def _number(name: str, kind: Any, metavar: str, text: str) -> Decorator[Any]:
    return click.option(f"--{name}", type=kind, metavar=metavar, help=text)


_JOB: list[Decorator[Any]] = [
    click.argument("model", required=False),
    click.option(
        "-f",
        "--file",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="Job file, YAML or JSON; `-` reads it from stdin. Options override what it says.",
    ),
    click.option(
        "--config",
        "config_file",
        type=click.Path(),
        help="config.json of transformers or diffusers, or its folder, instead of a MODEL.",
    ),
    click.option(
        "--input",
        "inputs",
        type=Shorthand(InputTensor, "SHAPE"),
        multiple=True,
        help="One sample of an input: 3x224x224, 512:int64, attention_mask=512:int64. Repeatable.",
    ),
    _number(
        "sequence-length", Count(), "N", "Tokens of a sample: the same as --input input_ids=N."
    ),
    _number("batch-size", Count(), "N", "Samples in one forward and backward pass on one GPU."),
    _member("precision", Precision, f"{_choices(Precision)}. Default: fp32."),
    _member("loss", Loss, f"{_choices(Loss)}."),
    _member("optimizer", OptimizerType, f"{_choices(OptimizerType)}. Default: sgd."),
    _member(
        "optimizer-implementation",
        OptimizerImplementation,
        f"{_choices(OptimizerImplementation)}. Default: what torch.optim picks on CUDA.",
    ),
    _number("momentum", float, "X", "Momentum of sgd and rmsprop. Default: 0."),
    _flag("nesterov", "Nesterov momentum (sgd)."),
    _flag("amsgrad", "Keep the maximum of the second moment (adam, adamw)."),
    _flag("centered", "Centered rmsprop."),
    _number("weight-decay", float, "X", "Default: the optimizer's own."),
    _number("state-count", int, "N", "Tensors that a custom optimizer keeps for each parameter."),
    _member("memory-format", MemoryFormat, f"{_choices(MemoryFormat)}. Default: contiguous."),
    _flag(
        "activation-checkpointing",
        "Compute activations anew in backward (gradient checkpointing), as the library does.",
    ),
    _flag("cudnn-benchmark", "torch.backends.cudnn.benchmark is set."),
    _member(
        "data-parallel",
        DataParallelStrategy,
        f"{_choices(DataParallelStrategy)}. Default: ddp where --data-parallel-size is above 1.",
    ),
    _flag("gradient-as-bucket-view", "Gradients are views of the buckets (ddp). Default: no."),
    _number("bucket-cap-mb", Count(), "N", "MiB of a bucket of gradients (ddp). Default: 25."),
    _number("shard-count", Count(), "N", "Ranks that shard the model (fsdp). Default: all ranks."),
    _flag(
        "reshard-after-forward",
        "Blocks give gathered parameters back after forward (fsdp). Default: yes.",
    ),
    _member("zero-grad", ZeroGrad, f"{_choices(ZeroGrad)}. Default: before-forward."),
    _member("clip-gradients", GradientClipping, f"{_choices(GradientClipping)}. Default: none."),
    _number("accumulation-steps", Count(), "N", "Passes before each optimizer step. Default: 1."),
    click.option(
        "--allocator-conf",
        type=Shorthand(AllocatorSettings, "SETTINGS"),
        help="As PYTORCH_CUDA_ALLOC_CONF: expandable_segments:True,max_split_size_mb:128.",
    ),
    click.option(
        "--model-config",
        type=KeyValue(),
        multiple=True,
        help="Constructor option of the model: num_classes=10. Repeatable.",
    ),
    click.option("--task", metavar="NAME", help="Task head of a transformers model: masked-lm."),
    click.option(
        "--attention",
        type=click.Choice(["eager", "sdpa", "flash_attention_2"]),
        help="attn_implementation of a transformers model. Default: its own, sdpa where it has it.",
    ),
    _member("padding", Padding, f"Of sequences: {_choices(Padding)}. Default: none."),
    _member("routing", Routing, f"Of tokens to experts: {_choices(Routing)}. Default: balanced."),
    _number("images-per-sample", Count(), "N", "Images beside the text of a sample. Default: 1."),
    _number("boxes-per-image", Count(), "N", "Objects in an image, for detection. Default: 8."),
    _flag(
        "conditions-are-false",
        "Conditions on values that are not known (`if mask.all():`). Default: they are true.",
    ),
    click.option("--dry-run", is_flag=True, help="Print the job file for this and do nothing."),
]

_GPU = click.option(
    "--gpu",
    "gpus",
    type=Shorthand(GpuTarget, "NAME[:FREE]"),
    multiple=True,
    help="GPU type, with the memory free on it where that is not all: nvidia-t4:12GiB. Repeatable.",
)
_HEADROOM = _number(
    "headroom", float, "FRACTION", "Share of the memory to leave free, 0 to 0.9. Default: 0.05."
)
_CONFIDENCE = _number(
    "confidence", float, "SHARE", "How sure bounds and verdicts are, 0.5 to 0.99. Default: 0.99."
)
_PLAN: list[Decorator[Any]] = [
    _number("global-batch-size", Count(), "N", "Samples per optimizer step over all ranks."),
    _number("data-parallel-size", Count(), "N", "Ranks. Default: 1."),
]
_FOR = f"Print what to ask a scheduler for, and nothing else: {_choices(Scheduler)}."
_PROFILE: list[Decorator[Any]] = [
    _member("device", DeviceType, "cuda or cpu. Default: a GPU where there is one, else the CPU."),
    click.option("--gpu", "gpu_type", metavar="NAME", help="Only on a GPU of this type."),
    _number("steps", Count(), "N", "Steps to measure, 1 to 100. Default: 3."),
    _number("warmup-steps", int, "N", "Steps before them that do not count. Default: 2."),
    click.option(
        "--memory-limit",
        type=Size(),
        help="Memory that the job may take, to imitate a smaller GPU: 12GiB. Default: all.",
    ),
    click.option("--time-limit", type=Seconds(), help="Longest time that it may run. Default: 60."),
    click.option("--wait", is_flag=True, help="Wait for a GPU that others use. Default: give up."),
    click.option(
        "--find-batch-size",
        is_flag=True,
        help="Measure other batch sizes too: the largest that runs, and the fastest.",
    ),
]
_PROFILE_FILTER: list[Decorator[Any]] = [
    click.option("--gpu", "gpu_type", metavar="NAME", help="Only of this GPU type."),
    click.option("--job", "job_digest", metavar="DIGEST", help="Only of the job with this digest."),
]


def _connection(name: str, field: str, text: str, **how: Any) -> Decorator[Any]:
    """An option with the variable of a field of `memplan.endpoint.Endpoint`."""
    return click.option(f"--{name}", envvar=VARIABLES[field], show_envvar=True, help=text, **how)


def _connections(file: click.Path) -> list[Decorator[Any]]:
    """How the server is reached."""
    return [
        _connection("tls", "tls", "Encrypt the connection to --server.", is_flag=True),
        _connection(
            "tls-ca", "root_certificates", "Authorities to trust, PEM. Implies --tls.", type=file
        ),
        _connection(
            "tls-cert", "client_certificate", "Client certificate, PEM. Implies --tls.", type=file
        ),
        _connection("tls-key", "client_key", "Key of --tls-cert, PEM.", type=file),
        _connection(
            "tls-server-name",
            "server_name",
            "Name that the server's certificate must have.",
            metavar="NAME",
        ),
        _connection("token-file", "token_file", "File with a token that says who asks.", type=file),
        _connection(
            "plaintext-token",
            "plaintext_token",
            "Send the token without TLS: something else encrypts.",
            is_flag=True,
        ),
        _connection(
            "keepalive",
            "keepalive",
            "Seconds of silence after which to ask whether the server is there. Default: never.",
            type=float,
            metavar="SECONDS",
        ),
        _connection(
            "retries",
            "retries",
            "How often to try again while no server can be reached, 0 to 4. "
            "Default: 3; of what answers schedulers, 0.",
            type=int,
            metavar="N",
        ),
    ]


_SERVER: list[Decorator[Any]] = [
    click.option(
        "--server",
        envvar=VARIABLES["target"],
        metavar="HOST:PORT",
        show_envvar=True,
        help="Server to ask; several with commas between them, or any gRPC target, take turns. "
        "Default: one started for this command, in this environment.",
    ),
    *_connections(click.Path(exists=True, dir_okay=False, path_type=Path)),
]


def _timeout(default: float) -> Decorator[Any]:
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help="Longest time to wait for the answer.",
    )


def _all(decorators: list[Decorator[Any]]) -> Decorator[Any]:
    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


job_options = _all(_JOB)
"""The job: a model and everything about its training."""
gpu_options = _all([_GPU, _HEADROOM, _CONFIDENCE])
"""The GPUs asked about, and how surely a job shall fit."""
plan_options = _all(_PLAN)
"""The global batch."""
measure_option = click.option(
    "--measure",
    type=Seconds(),
    help="Also run the job on a GPU of the server, for at most so long.",
)
"""Whether to measure what is planned."""
scheduler_option = click.option("--for", "scheduler", type=Member(Scheduler), help=_FOR)
"""In whose words to answer."""
profile_options = _all(_PROFILE)
"""How to measure."""
profile_filter_options = _all(_PROFILE_FILTER)
"""Which of the stored profiles."""
connection_options = _all(_connections(click.Path(dir_okay=False, path_type=Path)))
"""How the server is reached, for services: a missing file is an error when they start."""
server_options = _all([_timeout(120), *_SERVER])
"""Whom to ask, how it is reached, and how long to wait for an answer."""
profile_server_options = _all([_timeout(3600), *_SERVER])
"""The same for what waits in a queue."""
_STYLE = click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="How to print the answer.",
)


def format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to print the answer: `style`."""

    @_STYLE
    @click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
    @wraps(command)
    def with_style(*args: Any, style: str, as_json: bool, **kwargs: Any) -> Any:
        source = click.get_current_context().get_parameter_source("style")
        if as_json and style != "json" and source is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--json and --format {style} ask for two things: give one.")
        return command(*args, style="json" if as_json else style, **kwargs)

    return with_style
