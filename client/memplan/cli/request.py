"""From options and a job file to one request, remembering which option set which field."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import click

from memplan import jobfile
from memplan.cli import factory, own_model
from memplan.hugging_face import model_from_config
from memplan.ranks import in_ranks
from memplan.types import (
    CatalogModel,
    InputTensor,
    Model,
    Optimizer,
    PlanJobRequest,
    TrainingJob,
)

__all__ = ["Given", "assemble"]

_FIELDS = {
    "model": "job.model",
    "config_file": "job.model",
    "inputs": "job.inputs",
    "sequence_length": "job.inputs",
    "batch_size": "job.micro_batch_size",
    "precision": "job.precision",
    "loss": "job.loss",
    "optimizer": "job.optimizer.type",
    "optimizer_implementation": "job.optimizer.implementation",
    "momentum": "job.optimizer.momentum",
    "nesterov": "job.optimizer.nesterov",
    "amsgrad": "job.optimizer.amsgrad",
    "centered": "job.optimizer.centered",
    "weight_decay": "job.optimizer.weight_decay",
    "state_count": "job.optimizer.state_count",
    "memory_format": "job.memory_format",
    "activation_checkpointing": "job.activation_checkpointing",
    "cudnn_benchmark": "job.cudnn_benchmark",
    "data_parallel": "job.data_parallel.strategy",
    "gradient_as_bucket_view": "job.data_parallel.gradient_as_bucket_view",
    "bucket_cap_mb": "job.data_parallel.bucket_cap_mb",
    "shard_count": "job.data_parallel.shard_count",
    "reshard_after_forward": "job.data_parallel.reshard_after_forward",
    "zero_grad": "job.loop.zero_grad",
    "clip_gradients": "job.loop.gradient_clipping",
    "accumulation_steps": "job.loop.accumulation_steps",
    "allocator_conf": "job.allocator",
    "model_config": "job.model.catalog.config",
    "task": "job.model.catalog.task",
    "attention": "job.model.catalog.config.attn_implementation",
    "padding": "job.assumptions.padding",
    "routing": "job.assumptions.routing",
    "images_per_sample": "job.assumptions.images_per_sample",
    "boxes_per_image": "job.assumptions.boxes_per_image",
    "conditions_are_false": "job.assumptions.conditions_are_false",
    "gpus": "gpus",
    "headroom": "headroom_fraction",
    "confidence": "confidence",
    "global_batch_size": "global_batch_size",
    "data_parallel_size": "data_parallel_size",
    "measure": "measurement_budget",
    "scheduler": "scheduler",
}
"""Field of the request that each option sets, in the order in which they are applied."""

_FLAGS = {
    "model": "MODEL",
    "config_file": "--config",
    "inputs": "--input",
    "gpus": "--gpu",
    "scheduler": "--for",
}
"""What an option is called where that is not its name."""

_CONFIG = "job.model.catalog.config."
"""Before the name of each option of a model."""

_SAME = {"gpu_type": "gpus", "gpu": "gpus"}
"""Fields of other requests that are made from a field of this one."""

_NOT_IN_FILES = {
    "multiple_of": "--multiple-of",
    "max_batch_size": "--max-batch-size",
    "device_type": "--device",
    "step_count": "--steps",
    "warmup_step_count": "--warmup-steps",
    "memory_limit_bytes": "--memory-limit",
    "time_limit": "--time-limit",
    "wait_for_gpu": "--wait",
    "find_batch_size": "--find-batch-size",
}
"""Fields of other requests that only an option sets."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was asked for, and where it stands."""

    request: PlanJobRequest
    source: str = ""
    """The job file; empty without one."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Field path: option that set it."""

    @property
    def job(self) -> TrainingJob:
        """The job as each of the ranks runs it: requests about it alone do not say how many."""
        return in_ranks(self.request.job, self.request.data_parallel_size)

    def name_of(self, path: str) -> str:
        """What the user calls a field: the option that set or could set it, or its job file path.

        given.name_of("job.inputs[0].shape[1]")             # "--input"
        given.name_of("job.model.catalog.config.layers")    # "--model-config layers"
        """
        root = path.partition(".")[0]
        path = _SAME.get(root, root) + path.removeprefix(root)
        in_file = path.removeprefix("job.")
        by_option = _innermost(path, self.flags) or _NOT_IN_FILES.get(path, "")
        if by_option in (_flag("model_config"), _flag("config_file")) and path.startswith(_CONFIG):
            by_option = f"{by_option} {path.removeprefix(_CONFIG)}"
        if by_option or self.source:
            return by_option or f"{self.source}: {in_file}"
        return _innermost(path, _FLAG_OF) or in_file


def _flag(option: str) -> str:
    return _FLAGS.get(option, "--" + option.replace("_", "-"))


_FLAG_OF = {path: _flag(option) for option, path in reversed(_FIELDS.items())}


def _innermost(path: str, known: Mapping[str, str]) -> str:
    """The entry of `known` for the field at `path` or the nearest one around it; else empty."""
    while path and path not in known:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return known.get(path, "")


def assemble(options: Mapping[str, Any]) -> Given:
    """The request that the options describe, over the job file where one is named.

    Raises JobFileError for the file, CaptureError for a model of the user's own file and
    click.UsageError when no model is named, or options do not go together.
    """
    if options.get("model") is not None and options.get("config_file") is not None:
        raise click.UsageError("MODEL and --config each say which model it is: give one.")
    path = options.get("file")
    request = _read(path) if path else PlanJobRequest()
    flags: dict[str, str] = {}
    for option, at in _FIELDS.items():
        value = options.get(option)
        if value is None or value == ():
            continue
        flags[at] = _flag(option)
        request = _apply(request, option, at, value)
    model = options.get("model")
    if model is not None and factory.is_factory(model):
        request = replace(request, job=own_model.captured(model, request.job))
    if request.job.model == Model():
        raise click.UsageError(
            "No model. Name one (`memplan models` lists them), give its --config, or a job file "
            "with -f."
        )
    return Given(request=request, source=path or "", flags=flags)


def _read(path: str) -> PlanJobRequest:
    if path == "-":
        return jobfile.parse(sys.stdin.buffer.read(), source="stdin")
    return jobfile.load(path)


def _apply(request: PlanJobRequest, option: str, path: str, value: Any) -> PlanJobRequest:
    if option == "model" and factory.is_factory(value):
        value = Model()  # it is made when its inputs are known
    elif option == "model":
        value = Model(catalog=CatalogModel(name=value))
    elif option == "config_file":
        value = model_from_config(value)
    elif option == "sequence_length":
        value = _with_sequence(request.job.inputs, value)
    elif option == "optimizer":  # another class: the options of the file's are not meant for it
        path, value = "job.optimizer", Optimizer(type=value)
    elif option in ("model_config", "task", "attention"):
        catalog = request.job.model.catalog
        if catalog is None:
            raise click.UsageError(f"{_flag(option)} needs a model with a name.")
        if option == "model_config":
            value = {**catalog.config, **dict(value)}
        if option == "attention":
            path = "job.model.catalog.config"
            value = {**catalog.config, "attn_implementation": value}
    updated: PlanJobRequest = _replaced(request, path.split("."), value)
    return updated


def _with_sequence(inputs: tuple[InputTensor, ...], length: int) -> tuple[InputTensor, ...]:
    """The inputs with token ids of this length, in place of those of a job file."""
    tokens = InputTensor(name="input_ids", shape=(length,))
    return (tokens, *(given for given in inputs if given.name not in ("", tokens.name)))


def _replaced(instance: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    inner = _replaced(getattr(instance, name), rest, value) if rest else value
    return replace(instance, **{name: inner})
