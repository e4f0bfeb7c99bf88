"""What a transformers model's training step is fed with.

The first input without a name is the model's main input (`input_ids`, `pixel_values` ...), the next
ones are the parameters of forward() that follow it. An attention mask is absent unless it is given
by name or the job says that there is padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from memplan.types import DataType, InputTensor, Loss, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import (
    transformers_defaults,
    transformers_images,
    transformers_values,
)
from memplan_server.models.built import Stated
from memplan_server.models.images import float_type, spoken_shape
from memplan_server.models.transformers_images import TYPES, Images
from memplan_server.models.transformers_tasks import LabelContext, Task

__all__ = ["Fed", "resolve"]

_TARGETS = ("labels", "start_positions", "end_positions")
_INTEGERS = (DataType.INT64, DataType.INT32)
_WITH_IMAGES = "image-text-to-text"
_BEFORE_DECODER = ("seq2seq-lm", "speech-seq2seq")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fed:
    """Inputs and labels, resolved; all are passed by name."""

    inputs: tuple[InputTensor, ...]
    labels: tuple[InputTensor, ...]
    stated: dict[str, Stated]
    flattened: frozenset[str]
    options: dict[str, Any]
    assumptions: tuple[str, ...]


def resolve(job: TrainingJob, module: nn.Module, task: Task, model: str) -> Fed:
    """Everything that is passed to forward().

    Raises `InvalidJob` when the job's inputs are not what forward() takes.
    """
    parameters = _parameters(module)
    main = str(getattr(module, "main_input_name", parameters[0]))
    main = main if main in parameters else parameters[0]
    given = _named(job, parameters, main, model)
    beside_text = task.name == _WITH_IMAGES and "input_ids" in parameters
    images = _images(job, module, parameters, given) if beside_text else None
    given, assumptions = _with_main(module, task, given, main, model, images)
    try:
        given = transformers_values.with_padding(job, given, parameters, main)
    except ValueError as error:
        raise InvalidJob(Violation("job.assumptions.padding", str(error))) from None
    given = {name: _typed(job, tensor) for name, tensor in given.items()}
    _check_length(job, module, given[main])
    labels, decoder = _labels(job, module, task, given, main)
    inputs = {n: t for n, t in given.items() if n not in _TARGETS} | decoder
    stated = transformers_values.stated(job, module.config, inputs.values(), labels)
    if images is not None:
        of_text = transformers_images.text_row(module, images, given[main].shape[0])
        typed = {
            n: InputTensor(name=n, shape=given[main].shape, dtype=DataType.INT64) for n in TYPES
        }
        inputs |= {t.name: t for t in images.inputs}
        inputs |= {n: t for n, t in typed.items() if n in parameters}
        stated |= {**images.stated, **of_text}
        assumptions += (images.assumption,)
    return Fed(
        inputs=tuple(inputs.values()),
        labels=labels,
        stated={name: value for name, value in stated.items() if name in {*inputs, *names(labels)}},
        flattened=frozenset(names(images.inputs) if images and images.flattened else ()),
        options=dict(task.options),
        assumptions=assumptions,
    )


def names(tensors: Iterable[InputTensor]) -> list[str]:
    """Names of tensors."""
    return [tensor.name for tensor in tensors]


def _images(
    job: TrainingJob, module: nn.Module, parameters: list[str], given: dict[str, InputTensor]
) -> Images:
    """The images of each sample, taken out of what is given."""
    return transformers_images.describe(job, module, parameters, given.pop("pixel_values", None))


def _with_main(
    module: nn.Module,
    task: Task,
    given: dict[str, InputTensor],
    main: str,
    model: str,
    images: Images | None,
) -> tuple[dict[str, InputTensor], tuple[str, ...]]:
    """The inputs with the main one, and the other that some tasks need; what was assumed."""
    room = images.length if images else 0
    if images is not None and main in given and given[main].shape[0] <= room:
        said = f"{images.count} image(s) take {room} tokens; {given[main].shape[0]} are too few."
        raise InvalidJob(Violation("job.inputs", said))
    assumptions = []
    for name in dict.fromkeys([main, *task.needs]):
        if name not in given:
            shape = transformers_defaults.main_shape(module, name, task.name, room)
            given = {name: InputTensor(name=name, shape=shape), **given}
            shown = spoken_shape(shape)
            assumptions.append(f"the input is {name} of {shown}, the default of {model}")
    return given, tuple(assumptions)


def _parameters(module: nn.Module) -> list[str]:
    """Names of forward()'s parameters that hold tensors, in order; targets are among them."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(module.forward).parameters.values()
    return [parameter.name for parameter in found if parameter.kind in kinds]


def _named(
    job: TrainingJob, parameters: list[str], main: str, model: str
) -> dict[str, InputTensor]:
    """The job's inputs by the parameter that takes them."""
    taken = {tensor.name for tensor in job.inputs if tensor.name}
    order = [main, *(p for p in parameters if p != main)]
    free = iter([p for p in order if p not in taken and p not in _TARGETS])
    named = {}
    for index, tensor in enumerate(job.inputs):
        name = tensor.name or next(free, "")
        if name not in parameters:
            known = ", ".join(p for p in parameters if p not in ("return_dict", "use_cache"))
            said = f"{model} has no input {name!r}; forward() takes: {known}."
            raise InvalidJob(Violation(f"job.inputs[{index}].name", said))
        named[name] = replace(tensor, name=name)
    return named


def _typed(job: TrainingJob, tensor: InputTensor) -> InputTensor:
    """The input with an element type: indices for what is named so, else numbers."""
    indices = transformers_defaults.holds_indices(tensor.name)
    if tensor.dtype is DataType.UNSPECIFIED:
        default = transformers_defaults.INDICES if indices else float_type(job)
        if tensor.name in transformers_defaults.BOOLEANS:
            default = DataType.BOOL
        return replace(tensor, dtype=default)
    if tensor.name == "input_ids" and tensor.dtype not in _INTEGERS:
        index = next((i for i, t in enumerate(job.inputs) if t.name in ("", tensor.name)), 0)
        said = f"input_ids are indices: int64 or int32, not {tensor.dtype.value}."
        raise InvalidJob(Violation(f"job.inputs[{index}].dtype", said))
    return tensor


def _check_length(job: TrainingJob, module: nn.Module, main: InputTensor) -> None:
    """A sequence must fit the table of learned positions, where there is one."""
    if main.name != "input_ids":
        return
    if len(main.shape) != 1:
        said = f"input_ids is one sequence per sample, such as 512, not {spoken_shape(main.shape)}."
        raise InvalidJob(Violation("job.inputs[0].shape", said))
    longest = transformers_defaults.learned_positions(module)
    if longest is not None and main.shape[0] > longest:
        said = (
            f"{main.shape[0]} tokens are more than the model's table of {longest} positions; "
            "raise it in config (max_position_embeddings, n_positions)."
        )
        raise InvalidJob(Violation("job.inputs[0].shape" if job.inputs else "job.model", said))


def _labels(
    job: TrainingJob, module: nn.Module, task: Task, given: dict[str, InputTensor], main: str
) -> tuple[tuple[InputTensor, ...], dict[str, InputTensor]]:
    """The targets, and the decoder's input that stands in for them when there are none."""
    context = LabelContext(
        shape=given[main].shape, config=module.config, float_type=float_type(job)
    )
    labels = tuple(given.get(label.name, label) for label in task.labels(context))
    if job.loss in (Loss.UNSPECIFIED, Loss.MODEL):
        return labels, {}
    if task.name in _BEFORE_DECODER and "decoder_input_ids" not in given:
        return (), {"decoder_input_ids": replace(labels[0], name="decoder_input_ids")}
    return (), {}
