"""The model that a job names or writes down."""

from __future__ import annotations

from types import ModuleType

from memplan.types import CatalogModel, Loss, TrainingJob
from memplan_server.errors import InvalidJob, UnknownName, Violation
from memplan_server.models import (
    checkpointing,
    diffusers_models,
    graph,
    layer_stack,
    libraries,
    timm_models,
    torchvision_models,
    transformers_models,
)
from memplan_server.models.built import BuiltModel
from memplan_server.models.naming import nearest

__all__ = ["build", "list_models"]

_BUILDERS: dict[str, ModuleType] = {
    "diffusers": diffusers_models,
    "timm": timm_models,
    "torchvision": torchvision_models,
    "transformers": transformers_models,
}
_EXPLAINING = {"diffusers": diffusers_models, "transformers": transformers_models}
"""Those that can say why there is no such model."""


def build(job: TrainingJob) -> BuiltModel:
    """The job's model on the meta device, in train mode, and what it is fed with.

    Raises `UnknownName` for a model that does not exist, `InvalidJob` for options, inputs or layers
    that do not go together.
    """
    if job.model.catalog is not None:
        return _build_named(job, job.model.catalog)
    if job.model.layer_stack is not None:
        return layer_stack.build(job, job.model.layer_stack)
    if job.model.graph is not None:
        return graph.build(job, job.model.graph)
    said = "is required: give one of catalog, layer_stack, graph."
    raise InvalidJob(Violation("job.model", said))


def list_models() -> tuple[str, ...]:
    """Names of every catalog model of the installed libraries, `library/model`, sorted."""
    found = (b.list_models() for name, b in _BUILDERS.items() if libraries.installed(name))
    return tuple(sorted(name for names in found for name in names))


def _build_named(job: TrainingJob, model: CatalogModel) -> BuiltModel:
    library, _, name = model.name.partition("/")
    builder = _BUILDERS.get(library)
    if builder is not None:
        libraries.load(library)
    if builder is None or not builder.exists(name):
        if library in _EXPLAINING:
            _EXPLAINING[library].explain_missing(model, name)
        raise UnknownName("model", model.name, nearest(model.name, list_models()))
    built: BuiltModel = builder.build(job, model, name)
    if job.activation_checkpointing:
        checkpointing.enable(built.module, model.name)
    if job.loss is Loss.MODEL and not built.returns_loss:
        said = f"{model.name} computes no loss of its own; name another."
        raise InvalidJob(Violation("job.loss", said))
    return built
