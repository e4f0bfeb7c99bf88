"""Values of a transformers model's inputs where the model may look at them.

Tokens are ordinary ones, with the end-of-sequence token last; masks of attention are what
`Assumptions.padding` says; targets are valid. What the model does not look at takes no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from memplan.types import InputTensor, Padding, TrainingJob
from memplan_server.models import transformers_config
from memplan_server.models.built import Stated

__all__ = ["MASKS", "ordinary_tokens", "stated", "with_padding"]

MASKS = ("attention_mask", "decoder_attention_mask")
_TOKENS = ("input_ids", "decoder_input_ids")
_PACKED = 2
"""Sequences in a row of packed ones."""
_SAID = {
    "tokens": "tokens are ordinary ones, with the end-of-sequence token last",
    "full": "attention masks hold ones only (padding: none)",
    "padded": "attention masks have zeros in them (padding: padded)",
    "packed": f"{_PACKED} sequences of equal length fill each row (padding: packed)",
    "labels": "all labels are valid ones",
}


def with_padding(
    job: TrainingJob, given: dict[str, InputTensor], parameters: Iterable[str], main: str
) -> dict[str, InputTensor]:
    """The inputs, and those that tell about padding where the job has some.

    Raises ValueError with a sentence where the model cannot be told.
    """
    padding, known = job.assumptions.padding, set(parameters)
    if padding is Padding.PADDED and not any(name in given for name in MASKS):
        if "attention_mask" not in known or main.startswith("pixel"):
            raise ValueError("The model takes no attention_mask; its samples cannot be padded.")
        mask = replace(given[main], name="attention_mask", shape=given[main].shape[:1])
        return given | {"attention_mask": mask}
    if padding is Padding.PACKED and "position_ids" not in given:
        if "position_ids" not in known or main != "input_ids" or "attention_mask" in given:
            raise ValueError(
                "Sequences are told apart by position_ids, beside input_ids and without an "
                "attention_mask; the model is not given these. Choose none or padded."
            )
        return given | {"position_ids": replace(given[main], name="position_ids")}
    return given


def ordinary_tokens(config: Any) -> range:
    """The longest run of token ids of which none has a meaning of its own."""
    size = _vocabulary(config)
    special = {-1, size}
    for each in transformers_config.configurations(config):
        for name, value in vars(each).items():
            if name.endswith(("_token_id", "_token_index")):
                found = value if isinstance(value, (list, tuple)) else [value]
                special |= {v for v in found if isinstance(v, int) and 0 <= v < size}
    runs = [range(a + 1, b) for a, b in itertools.pairwise(sorted(special))]
    return max(runs, key=len)


def _vocabulary(config: Any) -> int:
    """Token ids are below this."""
    configs = transformers_config.configurations(config)
    sizes = [c.vocab_size for c in configs if isinstance(getattr(c, "vocab_size", None), int)]
    return min(sizes, default=2)


def stated(
    job: TrainingJob, config: Any, tensors: Iterable[InputTensor], labels: Iterable[InputTensor]
) -> dict[str, Stated]:
    """Values by name, of those inputs and labels for which there are some."""
    padding = job.assumptions.padding
    found: dict[str, Stated] = {}
    for tensor in tensors:
        if tensor.name in _TOKENS and len(tensor.shape) == 1:
            row = _tokens(config, tensor.shape[0])
            ordinary = ordinary_tokens(config)
            found[tensor.name] = Stated(row=row, assumption=_SAID["tokens"], ordinary=ordinary)
        elif tensor.name in MASKS:
            padded = padding is Padding.PADDED
            row = torch.ones(tensor.shape, dtype=torch.int64, device="cpu")
            said = _SAID["padded" if padded else "full"]
            found[tensor.name] = Stated(row=row, assumption=said, padded=padded)
        elif tensor.name == "position_ids" and padding is Padding.PACKED:
            length = -(-tensor.shape[0] // _PACKED)
            row = torch.arange(tensor.shape[0], device="cpu") % length
            found[tensor.name] = Stated(row=row, assumption=_SAID["packed"])
    for label in labels:
        if label.dtype.value.startswith("int"):
            row = torch.full(label.shape, _label(config, label), device="cpu")
            found[label.name] = Stated(row=row, assumption=_SAID["labels"])
    return found


def _label(config: Any, label: InputTensor) -> int:
    """A token where labels are tokens, else the first class."""
    return ordinary_tokens(config).start if label.name == "labels" and len(label.shape) == 1 else 0


def _tokens(config: Any, length: int) -> torch.Tensor:
    row = torch.full((length,), ordinary_tokens(config).start, device="cpu")
    end = getattr(config, "eos_token_id", None)
    text = getattr(config, "text_config", None)
    if end is None and text is not None:
        end = getattr(text, "eos_token_id", None)
    end = end[0] if isinstance(end, (list, tuple)) and end else end
    if isinstance(end, int) and 0 <= end < _vocabulary(config):
        row[-1] = end
    return row
