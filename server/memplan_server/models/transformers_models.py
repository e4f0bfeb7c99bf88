"""transformers' models, with a task head and its own loss.

A model type's default configuration is the model that made it known, with overrides from `config`.
The loss is the one that the head computes when it is given labels; with another `loss` in the job
the labels are left out and the loss is computed from the logits.

Known limitations: object detection is left out (targets are lists of boxes), and so are models that
want more to describe an image than `transformers_images` knows.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from memplan.types import CatalogModel, Loss, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import (
    libraries,
    transformers_config,
    transformers_defaults,
    transformers_file,
    transformers_inputs,
)
from memplan_server.models.built import BuiltModel
from memplan_server.models.construction import construction
from memplan_server.models.transformers_tasks import (
    TASKS,
    Task,
    default_task,
    task_of_class,
    tasks_of,
)

__all__ = ["build", "exists", "list_models"]

FIELD = "job.model.catalog"

_GENERATIVE = ("causal-lm", "seq2seq-lm", "speech-seq2seq")
_MASKING = "apply_spec_augment"
_NO_CACHE = "use_cache is off, as keys and values are not needed again in training"


@functools.cache
def list_models() -> tuple[str, ...]:
    """Names of the model types with a head for one of the tasks, `transformers/bert`, sorted."""
    types = libraries.load("transformers").CONFIG_MAPPING.keys()
    return tuple(f"transformers/{name}" for name in sorted(types) if tasks_of(name))


def exists(name: str) -> bool:
    """Whether there is a model type `name` with a head for one of the tasks."""
    return f"transformers/{name}" in list_models()


def explain_missing(model: CatalogModel, name: str) -> None:
    """Raise `InvalidJob` where more can be said than that there is no model `name`."""
    if name in libraries.load("transformers").CONFIG_MAPPING:
        known = ", ".join(TASKS)
        said = f"transformers has no head of {name} for any of the tasks {known}."
        raise InvalidJob(Violation(f"{FIELD}.name", said))
    if model.config.get("auto_map"):
        said = (
            f"transformers has no model type {name}; its code comes with its weights (auto_map), "
            "and is never run here. Capture the module where its code is, and plan the capture."
        )
        raise InvalidJob(Violation(f"{FIELD}.config.auto_map", said))


def build(job: TrainingJob, model: CatalogModel, name: str) -> BuiltModel:
    """The model type called `name` with its head. Raises `InvalidJob`."""
    config, architecture, assumptions = _configured(model, name)
    assumptions += transformers_defaults.complete(config, model.name)
    task = _task(model, name, config, architecture)
    whole = transformers_file.is_whole(model.config)
    if not whole:
        assumptions += transformers_defaults.fit_parts(config)
    assumptions += _settle(config, task, {} if whole else model.config)
    config.architectures = [architecture] if architecture else []  # which of a task's classes
    implementations = _implementations(model.config)
    at = f"{FIELD}.config" if model.config else f"{FIELD}.name"
    with construction(at), _without_looking_for_flash_attn():
        auto_class = getattr(libraries.load("transformers"), task.auto_class)
        module: nn.Module = auto_class.from_config(config, **implementations)
    fed = transformers_inputs.resolve(job, module, task, model.name)
    return BuiltModel(
        module=module.train(),
        inputs=fed.inputs,
        labels=fed.labels,
        stated=fed.stated,
        flattened=fed.flattened,
        options=fed.options,
        returns_loss=job.loss in (Loss.UNSPECIFIED, Loss.MODEL),
        assumptions=(*assumptions, *fed.assumptions),
    )


def _configured(model: CatalogModel, name: str) -> tuple[Any, str, tuple[str, ...]]:
    """The configuration, the class it was saved with where it is known, and assumptions."""
    at = f"{FIELD}.config"
    if not transformers_file.is_whole(model.config):
        overrides, said = transformers_defaults.fitting(name, model.config, model.name)
        return transformers_config.make(name, overrides, at, model.name), "", said
    file = transformers_file.read(model.config, name, at, model.name)
    return file.config, file.architecture, file.assumptions


def _task(model: CatalogModel, name: str, config: Any, architecture: str) -> Task:
    if not model.task:
        of_class = task_of_class(name, architecture)
        return of_class or default_task(name, is_encoder_decoder=bool(config.is_encoder_decoder))
    task = TASKS.get(model.task)
    available = tasks_of(name)
    if task is None or task not in available:
        known = ", ".join(t.name for t in available)
        said = f"{model.name} has no head for {model.task}; it has for: {known}."
        raise InvalidJob(Violation(f"{FIELD}.task", said))
    return task


def _implementations(overrides: Mapping[str, Any]) -> dict[str, str]:
    """How attention and experts are computed, where that is said."""
    said = {}
    for option, known in transformers_config.IMPLEMENTATIONS.items():
        if option in overrides:
            said[option] = overrides[option]
            if said[option] not in known:
                violation = Violation(
                    f"{FIELD}.config.{option}", f"must be one of {', '.join(known)}."
                )
                raise InvalidJob(violation)
    return said


@contextlib.contextmanager
def _without_looking_for_flash_attn() -> Iterator[None]:
    """Whether the package and a GPU for it are here does not matter: they are simulated.

    Nothing is taken from the hub in its place.
    """
    utils: Any = importlib.import_module("transformers.modeling_utils")
    replaced: list[tuple[Any, str, Any]] = [
        (utils.PreTrainedModel, "_flash_attn_import_error", lambda *args, **kwargs: None),
        (utils, "is_kernels_available", lambda *args, **kwargs: False),
        (utils, "lazy_import_flash_attention", lambda *args, **kwargs: None),
    ]
    originals = [getattr(holder, name) for holder, name, _ in replaced]
    for holder, name, stand_in in replaced:
        setattr(holder, name, stand_in)
    try:
        yield
    finally:
        for (holder, name, _), original in zip(replaced, originals, strict=True):
            setattr(holder, name, original)


def _settle(config: Any, task: Task, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Set what a training script sets besides; the assumptions worth stating."""
    assumptions = []
    config.dtype = None
    if "use_cache" not in overrides:
        cached = [c for c in transformers_config.configurations(config) if _caches(c)]
        for each in cached:
            each.use_cache = False
        if cached and task.name in _GENERATIVE:
            assumptions.append(_NO_CACHE)
    if task.name == "sequence-classification" and getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = 0
    if config.is_encoder_decoder:
        _settle_decoder_start(config)
    return (*assumptions, *_settle_masking(config, overrides))


def _settle_masking(config: Any, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Leave SpecAugment out: the gradient of what it masks has a shape that depends on chance."""
    if overrides.get(_MASKING):
        said = "cannot be simulated: what it masks depends on chance. Leave it out."
        raise InvalidJob(Violation(f"{FIELD}.config.{_MASKING}", said))
    masked = [c for c in transformers_config.configurations(config) if getattr(c, _MASKING, False)]
    for each in masked:
        setattr(each, _MASKING, False)
    return (f"{_MASKING} is off, as what it masks depends on chance",) if masked else ()


def _settle_decoder_start(config: Any) -> None:
    """Targets are shifted right to become the decoder's input; their first token is the padding
    (T5's own is 0) where the configuration names none. Which one it is takes no memory."""
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0
    if getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id


def _caches(config: Any) -> bool:
    return bool(getattr(config, "use_cache", False))
