"""What runs in a worker process.

    initialize(memory_limit_bytes)      # once a process
    trace(job, compute_capability)      # -> Timeline.to_bytes()
    list_models()                       # -> names

Raises only `memplan_server.errors`, which are plain data and cross the process border.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.metadata
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from memplan.types import TrainingJob
from memplan_server import models
from memplan_server.errors import InvalidJob, LimitExceeded, MemplanError, Violation
from memplan_server.models.explained import explain
from memplan_server.simulate import device
from memplan_server.simulate import trace as tracing
from memplan_server.simulate.repetition import with_third_step
from memplan_server.timeline import Timeline

__all__ = ["initialize", "list_models", "trace"]

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "diffusers")
_CACHED_SHAPES = 50_000
"""Entries of PyTorch's cache of operator shapes above which it is emptied: about 100 MB."""


def initialize(memory_limit_bytes: int | None = None) -> None:
    """Bound this process's memory and set the simulated device up."""
    if memory_limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))
    torch.set_num_threads(1)
    device.register()
    gc.collect()
    gc.freeze()


def list_models() -> tuple[str, ...]:
    """Names of every model that can be built, `library/model`, sorted."""
    return models.list_models()


def trace(job: TrainingJob, compute_capability: tuple[int, int]) -> bytes:
    """The job's timeline on such a GPU, as `Timeline.to_bytes()`.

    Raises `InvalidJob` for a model that cannot be built or executed with these inputs and
    `UnknownName` for one that does not exist.
    """
    if len(FakeTensorMode.cache) > _CACHED_SHAPES:
        FakeTensorMode.cache_clear()
    with _errors_of_the_model("job.model", "The model cannot be built"):
        built = models.build(job)
    with _errors_of_the_model("job", "The training step cannot be executed"):
        timeline = tracing.trace_affine(job, built, compute_capability)
        if timeline is None:
            timeline = _trace_exactly(job, built, compute_capability)
    timeline = dataclasses.replace(timeline, library_versions=_library_versions(job))
    return with_third_step(timeline).to_bytes()


def _trace_exactly(
    job: TrainingJob, built: models.BuiltModel, compute_capability: tuple[int, int]
) -> Timeline:
    fixed = built.fixed_batch_size
    if fixed and fixed != job.micro_batch_size:
        said = f"The graph holds for a batch of {fixed} only, not for {job.micro_batch_size}."
        raise InvalidJob(Violation("job.micro_batch_size", said))
    timeline = tracing.trace_at(job, built, compute_capability, max(1, job.micro_batch_size))
    note = (
        "the sequence of allocations depends on the batch size; each batch size is simulated apart"
    )
    return dataclasses.replace(timeline, assumptions=(*timeline.assumptions, note))


@contextmanager
def _errors_of_the_model(field: str, what: str) -> Iterator[None]:
    """Whatever a model raises while it is built or executed is about the job."""
    try:
        yield
    except MemplanError:
        raise
    except MemoryError:
        raise LimitExceeded(
            "The job needs more memory to simulate than a worker may take."
        ) from None
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        reason = (
            f"it needs the values of data: {error.func} has a result whose shape depends on them"
        )
        raise InvalidJob(Violation(field, f"{what}: {reason}.")) from None
    except Exception as error:
        raise InvalidJob(Violation(field, f"{what}: {explain(error)}")) from error


def _library_versions(job: TrainingJob) -> dict[str, str]:
    """Versions of the libraries that the timeline depends on."""
    library = job.model.catalog.name.partition("/")[0] if job.model.catalog else ""
    wanted = ("torch", library) if library in _LIBRARIES else ("torch",)
    return {name: importlib.metadata.version(name) for name in wanted}
