"""Rules of a training job."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from memplan.types import (
    AllocatorSettings,
    Assumptions,
    CatalogModel,
    DataParallel,
    DataParallelStrategy,
    InputTensor,
    Loss,
    Optimizer,
    OptimizerGroup,
    OptimizerImplementation,
    OptimizerType,
    TrainingJob,
    TrainingLoop,
)
from memplan_server.errors import Violation
from memplan_server.validation.graph import graph_violations
from memplan_server.validation.layers import stack_violations
from memplan_server.validation.rules import (
    Violations,
    brief,
    fraction,
    sizes,
    text,
    unused,
    whole,
)

__all__ = ["LARGEST_BATCH", "job_violations", "measuring_violations"]

LARGEST_BATCH = 2**24
MOST_INPUTS = 16
MOST_ELEMENTS = 2**40
MOST_CONFIG_VALUES = 1_000
MOST_GROUPS = 4_096
DEEPEST_CONFIG = 8
LARGEST_CONFIG_NUMBER = 2**53

_SOURCES = ("catalog", "layer_stack", "graph")
MODEL_NAME = re.compile(r"[a-z0-9_-]+/[A-Za-z0-9_.-]+")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TASKS = (
    "masked-lm",
    "causal-lm",
    "seq2seq-lm",
    "sequence-classification",
    "token-classification",
    "question-answering",
    "image-classification",
    "image-text-to-text",
    "zero-shot-image-classification",
    "speech-seq2seq",
    "video-classification",
    "audio-classification",
    "semantic-segmentation",
    "ctc",
)

_ONLY_DDP, _ONLY_FSDP = "Only DDP has buckets.", "Only FSDP shards the model."
_MOMENTUM = (OptimizerType.SGD, OptimizerType.RMSPROP)
_AMSGRAD = (OptimizerType.ADAM, OptimizerType.ADAMW)
_FUSED = (OptimizerType.ADAM, OptimizerType.ADAMW, OptimizerType.SGD, OptimizerType.ADAGRAD)


def job_violations(job: TrainingJob, at: str, *, batch_required: bool) -> Violations:
    """Every rule that a job breaks. `at` is its path in the request."""
    yield from _model(job, f"{at}.model")
    yield from _inputs(job, f"{at}.inputs")
    if job.model.layer_stack is not None and job.loss is Loss.MODEL:
        yield Violation(f"{at}.loss", "A layer stack computes no loss of its own; name another.")
    if job.model.catalog is None and job.activation_checkpointing:
        said = "Only models of a catalog have it; captured ones have what their code does."
        yield Violation(f"{at}.activation_checkpointing", said)
    if job.model.graph is None and job.optimizer.groups:
        yield Violation(f"{at}.optimizer.groups", "Only the parameters of a graph have groups.")
    if job.model.graph is not None and job.data_parallel.strategy is DataParallelStrategy.FSDP:
        said = "A captured model has no modules to shard; name the model in a catalog."
        yield Violation(f"{at}.data_parallel.strategy", said)
    if job.model.graph is not None:
        yield from _graph_loss(job, f"{at}.loss")
    yield from _optimizer(job.optimizer, f"{at}.optimizer")
    yield from _loop(job.loop, f"{at}.loop")
    yield from _allocator(job.allocator, f"{at}.allocator")
    yield from _data_parallel(job.data_parallel, f"{at}.data_parallel")
    yield from _assumptions(job.assumptions, f"{at}.assumptions")
    batch = f"{at}.micro_batch_size"
    yield from whole(batch, job.micro_batch_size, 1, LARGEST_BATCH, unset=not batch_required)


def measuring_violations(job: TrainingJob, at: str) -> Violations:
    """Why one process on one GPU cannot run the job."""
    if job.data_parallel.strategy is DataParallelStrategy.FSDP:
        said = "A job with FSDP takes all its ranks to be measured: ask for an estimate instead."
        yield Violation(f"{at}.data_parallel.strategy", said)


def _graph_loss(job: TrainingJob, at: str) -> Violations:
    assert job.model.graph is not None
    has_loss = job.model.graph.loss is not None
    if job.loss is Loss.MODEL and not has_loss:
        yield Violation(at, "The graph has no loss of its own; name another, or capture one.")
    if job.loss not in (Loss.MODEL, Loss.UNSPECIFIED) and has_loss:
        yield Violation(at, f"The graph has a loss of its own; leave {job.loss.value} out.")


def _model(job: TrainingJob, at: str) -> Violations:
    model = job.model
    given = [name for name in _SOURCES if getattr(model, name) is not None]
    if not given:
        yield Violation(at, f"is required: give one of {', '.join(_SOURCES)}.")
    if len(given) > 1:
        yield Violation(at, f"Give only one of {', '.join(given)}.")
    if model.graph is not None:
        groups = len(job.optimizer.groups)
        yield from graph_violations(model.graph, groups, f"{at}.graph")
        yield from _fixed_batch(job, model.graph.fixed_batch_size)
    if model.catalog is not None:
        yield from _catalog_model(model.catalog, f"{at}.catalog")
    if model.layer_stack is not None:
        yield from stack_violations(model.layer_stack, f"{at}.layer_stack")


def _fixed_batch(job: TrainingJob, fixed: int) -> Violations:
    if fixed and job.micro_batch_size != fixed:
        said = (
            f"The graph holds for a batch of {fixed} only, since it was captured so: ask for an "
            f"estimate with micro_batch_size {fixed}."
        )
        yield Violation("job.micro_batch_size", said)


def _catalog_model(model: CatalogModel, at: str) -> Violations:
    if not model.name:
        yield Violation(f"{at}.name", "is required: `torchvision/resnet50`, for example.")
    elif len(model.name) > 200 or not MODEL_NAME.fullmatch(model.name):
        given = brief(model.name)
        yield Violation(
            f"{at}.name", f"must be `library/model`, such as torchvision/resnet50, not {given}."
        )
    if model.task and model.task not in TASKS:
        known = ", ".join(TASKS)
        yield Violation(f"{at}.task", f"must be one of {known}, not {brief(model.task)}.")
    if model.task and not model.name.startswith("transformers/"):
        yield Violation(f"{at}.task", "Only transformers models have task heads.")
    yield from _config(model.config, f"{at}.config")


def _config(config: Mapping[str, Any], at: str) -> Violations:
    if _count(config) > MOST_CONFIG_VALUES:
        yield Violation(at, f"has more than {MOST_CONFIG_VALUES:,} values.")
        return
    for key, value in config.items():
        if len(key) > 100 or not IDENTIFIER.fullmatch(key):
            yield Violation(at, f"{brief(key)} is no name of an option.")
        else:
            yield from _config_value(value, f"{at}.{key}", 1)


def _count(value: Any) -> int:
    """Values in `value`, itself included."""
    if isinstance(value, Mapping):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list | tuple) else 1


def _config_value(value: Any, at: str, depth: int) -> Violations:
    if isinstance(value, Mapping | list | tuple):
        if depth == DEEPEST_CONFIG:
            yield Violation(at, f"is nested more than {DEEPEST_CONFIG} deep.")
            return
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in pairs:
            yield from _config_value(item, f"{at}[{brief(key)}]", depth + 1)
    elif isinstance(value, str):
        yield from text(at, value, longest=1_000)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_CONFIG_NUMBER:
        given = value if math.isfinite(value) else str(value)
        yield Violation(at, f"must be a number of at most 2^53 either way, not {given}.")


def _inputs(job: TrainingJob, at: str) -> Violations:
    if len(job.inputs) > MOST_INPUTS:
        yield Violation(at, f"has {len(job.inputs):,} entries; at most {MOST_INPUTS} are allowed.")
        return
    if job.model.graph is not None and job.inputs:
        yield Violation(at, "A graph has inputs of its own: leave these out.")
    if job.model.layer_stack is not None and len(job.inputs) != 1:
        yield Violation(at, f"A layer stack takes exactly one input, not {len(job.inputs)}.")
    names: set[str] = set()
    for index, tensor in enumerate(job.inputs):
        yield from _input(tensor, f"{at}[{index}]")
        if tensor.name and tensor.name in names:
            yield Violation(f"{at}[{index}].name", f"{brief(tensor.name)} is given twice.")
        names.add(tensor.name)


def _input(tensor: InputTensor, at: str) -> Violations:
    if tensor.name and (len(tensor.name) > 100 or not IDENTIFIER.fullmatch(tensor.name)):
        yield Violation(f"{at}.name", f"must name a parameter, not {brief(tensor.name)}.")
    yield from sizes(f"{at}.shape", tensor.shape, most=8)
    if len(tensor.shape) <= 8 and math.prod(max(n, 1) for n in tensor.shape) > MOST_ELEMENTS:
        yield Violation(f"{at}.shape", "One sample has more than 2^40 elements.")


def _optimizer(optimizer: Optimizer, at: str) -> Violations:
    kind = optimizer.type if optimizer.type is not OptimizerType.UNSPECIFIED else OptimizerType.SGD
    yield from whole(f"{at}.state_count", optimizer.state_count, 0, 16)
    yield from unused(
        f"{at}.state_count",
        optimizer.state_count != 0 and kind is not OptimizerType.CUSTOM,
        f"Only CUSTOM takes a state_count; the states of {kind.name} are known.",
    )
    yield from _options(optimizer, kind, at)
    if len(optimizer.groups) > MOST_GROUPS:
        yield Violation(f"{at}.groups", f"has more than {MOST_GROUPS:,} entries.")
        return
    for index, group in enumerate(optimizer.groups):
        yield from _options(group, kind, f"{at}.groups[{index}]")


def _options(options: Optimizer | OptimizerGroup, kind: OptimizerType, at: str) -> Violations:
    """Options of the optimizer or of one of its groups."""
    yield from fraction(f"{at}.momentum", options.momentum, high=1)
    weight_decay = options.weight_decay
    if weight_decay is not None and not 0 <= weight_decay < math.inf:
        wrong = f"must be a number of at least 0, not {weight_decay}."
        yield Violation(f"{at}.weight_decay", wrong)
    yield from _combinations(options, kind, at)


def _combinations(options: Optimizer | OptimizerGroup, kind: OptimizerType, at: str) -> Violations:
    """Options of one optimizer given to another."""
    name = kind.name
    yield from unused(
        f"{at}.momentum",
        options.momentum != 0 and kind not in _MOMENTUM,
        f"{name} has no momentum option; SGD and RMSPROP have.",
    )
    yield from unused(
        f"{at}.amsgrad",
        options.amsgrad and kind not in _AMSGRAD,
        f"{name} has no amsgrad option; ADAM and ADAMW have.",
    )
    yield from unused(
        f"{at}.centered",
        options.centered and kind is not OptimizerType.RMSPROP,
        f"{name} has no centered option; RMSPROP has.",
    )
    yield from unused(
        f"{at}.nesterov",
        options.nesterov and (kind is not OptimizerType.SGD or options.momentum == 0),
        "Nesterov momentum is for SGD with momentum above 0.",
    )
    yield from unused(
        f"{at}.implementation",
        options.implementation is OptimizerImplementation.FUSED and kind not in _FUSED,
        f"{name} has no fused implementation; ADAM, ADAMW, SGD and ADAGRAD have.",
    )


def _data_parallel(data_parallel: DataParallel, at: str) -> Violations:
    yield from whole(f"{at}.bucket_cap_mb", data_parallel.bucket_cap_mb, 1, 2**20, unset=True)
    yield from whole(f"{at}.shard_count", data_parallel.shard_count, 2, 2**20, unset=True)
    strategy = data_parallel.strategy
    if strategy not in (DataParallelStrategy.DDP, DataParallelStrategy.UNSPECIFIED):
        views, size = data_parallel.gradient_as_bucket_view, data_parallel.bucket_cap_mb
        yield from unused(f"{at}.gradient_as_bucket_view", views, _ONLY_DDP)
        yield from unused(f"{at}.bucket_cap_mb", size != 0, _ONLY_DDP)
    if strategy is not DataParallelStrategy.FSDP:
        count, reshards = data_parallel.shard_count, data_parallel.reshard_after_forward
        yield from unused(f"{at}.shard_count", count != 0, _ONLY_FSDP)
        yield from unused(f"{at}.reshard_after_forward", reshards is not None, _ONLY_FSDP)


def _loop(loop: TrainingLoop, at: str) -> Violations:
    steps = loop.accumulation_steps
    yield from whole(f"{at}.accumulation_steps", steps, 1, 2**20, unset=True)


def _assumptions(assumptions: Assumptions, at: str) -> Violations:
    images = assumptions.images_per_sample
    yield from whole(f"{at}.images_per_sample", images, 1, 1_024, unset=True)
    boxes = assumptions.boxes_per_image
    yield from whole(f"{at}.boxes_per_image", boxes, 1, 10_000, unset=True)


def _allocator(allocator: AllocatorSettings, at: str) -> Violations:
    divisions = allocator.roundup_power2_divisions
    if divisions not in (0, 2, 4, 8, 16):
        yield Violation(
            f"{at}.roundup_power2_divisions", f"must be 0, 2, 4, 8 or 16, not {divisions}."
        )
    split = allocator.max_split_size_mb
    yield from whole(f"{at}.max_split_size_mb", split, 20, 2**31, unset=True)
    threshold = f"{at}.garbage_collection_threshold"
    yield from fraction(threshold, allocator.garbage_collection_threshold, high=1)
