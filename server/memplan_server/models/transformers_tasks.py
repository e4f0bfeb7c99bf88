"""Task heads of transformers models and the targets each takes.

    task = default_task("bert", is_encoder_decoder=False)        # masked-lm
    labels = task.labels(...)

A head exists for a model type when transformers' Auto mapping of that task lists it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from memplan.types import DataType, InputTensor
from memplan_server.models import libraries

__all__ = ["TASKS", "LabelContext", "Task", "default_task", "task_of_class", "tasks_of"]

_TARGET_LENGTH = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelContext:
    """What targets depend on."""

    shape: tuple[int, ...]
    """Shape of one sample of the main input."""
    config: Any
    """The model's configuration."""
    float_type: DataType
    """Element type of targets that are numbers."""


Labels = Callable[[LabelContext], tuple[InputTensor, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A kind of head."""

    name: str
    """As in `CatalogModel.task`."""
    auto_class: str
    """transformers' Auto class."""
    mapping: str
    """transformers' mapping from model type to class name."""
    labels: Labels
    """The targets of one sample."""
    needs: tuple[str, ...] = ()
    """Inputs beside the main one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of forward()."""


def _indices(name: str, shape: tuple[int, ...] = ()) -> InputTensor:
    return InputTensor(name=name, shape=shape, dtype=DataType.INT64)


def _one_class(context: LabelContext) -> tuple[InputTensor, ...]:
    """A class, or numbers where the configuration says regression or several classes."""
    config = context.config
    problem = getattr(config, "problem_type", None)
    if problem == "multi_label_classification":
        shape = (int(config.num_labels),)
        return (InputTensor(name="labels", shape=shape, dtype=context.float_type),)
    if problem == "regression" or (problem is None and config.num_labels == 1):
        return (InputTensor(name="labels", dtype=context.float_type),)
    return (_indices("labels"),)


def _each_token(context: LabelContext) -> tuple[InputTensor, ...]:
    """A label for each token; as many as a text beside another input may have."""
    is_text = len(context.shape) == 1
    return (_indices("labels", context.shape if is_text else (_TARGET_LENGTH,)),)


def _span(context: LabelContext) -> tuple[InputTensor, ...]:
    return (_indices("start_positions"), _indices("end_positions"))


def _transcript(context: LabelContext) -> tuple[InputTensor, ...]:
    return (_indices("labels", (_TARGET_LENGTH,)),)


def _each_pixel(context: LabelContext) -> tuple[InputTensor, ...]:
    return (_indices("labels", context.shape[-2:]),)


def _no_labels(context: LabelContext) -> tuple[InputTensor, ...]:
    return ()


def _task(name: str, auto_class: str, mapping: str, labels: Labels, **more: Any) -> Task:
    return Task(
        name=name,
        auto_class=f"AutoModelFor{auto_class}",
        mapping=f"MODEL_FOR_{mapping}_MAPPING_NAMES",
        labels=labels,
        **more,
    )


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        _task("masked-lm", "MaskedLM", "MASKED_LM", _each_token),
        _task("causal-lm", "CausalLM", "CAUSAL_LM", _each_token),
        _task("seq2seq-lm", "Seq2SeqLM", "SEQ_TO_SEQ_CAUSAL_LM", _each_token),
        _task("speech-seq2seq", "SpeechSeq2Seq", "SPEECH_SEQ_2_SEQ", _transcript),
        _task("image-classification", "ImageClassification", "IMAGE_CLASSIFICATION", _one_class),
        _task("video-classification", "VideoClassification", "VIDEO_CLASSIFICATION", _one_class),
        _task("audio-classification", "AudioClassification", "AUDIO_CLASSIFICATION", _one_class),
        _task(
            "semantic-segmentation", "SemanticSegmentation", "SEMANTIC_SEGMENTATION", _each_pixel
        ),
        _task(
            "sequence-classification",
            "SequenceClassification",
            "SEQUENCE_CLASSIFICATION",
            _one_class,
        ),
        _task("token-classification", "TokenClassification", "TOKEN_CLASSIFICATION", _each_token),
        _task("question-answering", "QuestionAnswering", "QUESTION_ANSWERING", _span),
        _task(
            "zero-shot-image-classification",
            "ZeroShotImageClassification",
            "ZERO_SHOT_IMAGE_CLASSIFICATION",
            _no_labels,
            needs=("input_ids", "pixel_values"),
            options={"return_loss": True},
        ),
        _task("image-text-to-text", "ImageTextToText", "IMAGE_TEXT_TO_TEXT", _each_token),
        _task("ctc", "CTC", "CTC", _transcript),
    )
}
"""In the order in which a model type's default is looked for. CTC comes last: most models pick its
targets out by their values, which a simulation does not have."""

_OF_ENCODER_DECODERS = ("seq2seq-lm", "speech-seq2seq")


@functools.cache
def _mapping(name: str) -> Mapping[str, Any]:
    libraries.load("transformers")
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    mapping: Mapping[str, Any] = getattr(auto, name)
    return mapping


def tasks_of(model_type: str) -> tuple[Task, ...]:
    """The tasks that a model type has heads for."""
    return tuple(task for task in TASKS.values() if model_type in _mapping(task.mapping))


def default_task(model_type: str, *, is_encoder_decoder: bool) -> Task:
    """What the model type is pretrained for."""
    tasks = tasks_of(model_type)
    if is_encoder_decoder:
        tasks = (*(t for t in tasks if t.name in _OF_ENCODER_DECODERS), *tasks)
    return tasks[0]


def task_of_class(model_type: str, class_name: str) -> Task | None:
    """The task that a class of the model type (`LlamaForCausalLM`) is the head for, if any."""
    with_images_first = sorted(tasks_of(model_type), key=lambda t: t.name != "image-text-to-text")
    for task in with_images_first:
        names = _mapping(task.mapping)[model_type]
        if class_name in ((names,) if isinstance(names, str) else names):
            return task
    return None
