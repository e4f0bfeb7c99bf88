"""Job files: a training job, and what to plan for it, as YAML or JSON.

    request = load("job.yaml")              # -> PlanJobRequest
    Path("job.yaml").write_text(dump(request))

A file has the fields of `TrainingJob` at its top, and beside them those of a plan: `gpus`,
`global_batch_size`, `data_parallel_size`, `headroom_fraction`, `confidence`,
`measurement_budget`.

    model: torchvision/resnet50             # or {name: ..., config: {num_classes: 10}}
    inputs: [3x224x224]                     # or [512:int64], [attention_mask=512:int64]
    optimizer: adam                         # or {type: sgd, momentum: 0.9}
    precision: amp-bf16
    batch_size: 64                          # the same as micro_batch_size
    gpus: [nvidia-t4, "nvidia-a100-40gb:32GiB"]
    global_batch_size: 1024

A model may be written down layer by layer:

    model:
      layers:
        - flatten
        - linear: 128
        - relu
        - conv: {out_channels: 32, kernel_size: 3}
        - residual: [conv: {out_channels: 32, kernel_size: 3, padding: same}, relu]
        - lstm: {hidden_size: 256, num_layers: 2}

or be a Hugging Face `config.json`, with fields of it replaced:

    model: {config_file: config.json, task: causal-lm, config: {num_hidden_layers: 8}}

A relative path begins at the job file. YAML's plain scalars are those of YAML 1.2, so `no` and
`12:30` are text. All mistakes are reported at once, each with its path, as `JobFileError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from memplan.errors import JobFileError, Violation
from memplan.hugging_face import model_from_config
from memplan.plain import did_you_mean, from_dict, to_dict
from memplan.shorthand import compact, expand
from memplan.types import PlanJobRequest, TrainingJob
from memplan.wire import WireError

__all__ = ["dump", "load", "parse"]

_LARGEST_FILE = 4 << 20
_MOST_VALUES = 100_000
"""Values after aliases are followed, so that a few lines cannot stand for billions."""
_PLAN_FIELDS = tuple(f.name for f in fields(PlanJobRequest) if f.name != "job")
_JOB_FIELDS = tuple(f.name for f in fields(TrainingJob))


def load(path: str | Path) -> PlanJobRequest:
    """The request in a file. Raises JobFileError for everything that is wrong with it."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise JobFileError(f"{path} cannot be read: {error.strerror}") from error
    return parse(data, source=str(path), folder=Path(path).parent)


def parse(
    data: bytes | str,
    *,
    source: str = "the job file",
    folder: Path | None = None,
    files: bool = True,
) -> PlanJobRequest:
    """The request in the text of a job file; `source` is what messages call it.

    Files that it names are looked for from `folder`, the working directory by default; without
    `files` it may name none: for texts of others than who reads them.
    """
    if len(data) > _LARGEST_FILE:
        raise JobFileError(f"{source} is larger than {_LARGEST_FILE >> 20} MiB")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobFileError(f"{source} is not UTF-8 text: byte {error.start} is wrong") from error
    return _request(_read(text, source), source, (folder or Path()) if files else None)


def dump(request: PlanJobRequest, *, style: str = "yaml") -> str:
    """The shortest job file for a request; `style` is `yaml` or `json`."""
    data = to_dict(request, defaults=False, compact=compact)
    data = {**data.pop("job", {}), **data}
    if style == "json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    from memplan import _yaml

    return _yaml.dump(data)


def _read(text: str, source: str) -> Any:
    """Plain data. What looks like JSON is tried as JSON first, of which YAML reads only most."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            if source.endswith(".json"):
                raise JobFileError(f"{source} is no JSON: {error}") from error
        except (ValueError, RecursionError) as error:
            raise JobFileError(f"{source} cannot be read: {error}") from error
    import yaml

    from memplan import _yaml

    try:
        return _yaml.load(text)
    except yaml.YAMLError as error:
        raise JobFileError(f"{source} is no YAML: {_said(error)}") from error


def _said(error: Any) -> str:
    """What the parser says, with the line, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    context = f"{error.context}: " if error.context else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {context}{error.problem}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return data


def _request(data: Any, source: str, folder: Path | None) -> PlanJobRequest:
    if not isinstance(data, Mapping):
        found = "is empty" if data is None else "has no fields at its top"
        raise JobFileError(f"{source} {found}: it needs at least `model: NAME`")
    if _count(data, _MOST_VALUES) > _MOST_VALUES:
        raise JobFileError(f"{source} has more than {_MOST_VALUES:,} values")
    known, violations = _known_fields(data)
    if isinstance(known.get("model"), Mapping) and "config_file" in known["model"]:
        known["model"] = _model_of_file(known["model"], folder)
    plan = {name: known.pop(name) for name in _PLAN_FIELDS if name in known}
    if isinstance(plan.get("gpus"), str | Mapping):
        plan["gpus"] = [plan["gpus"]]
    try:
        request = from_dict(PlanJobRequest, {"job": known, **plan}, expand=expand)
    except WireError as error:
        violations += [Violation(f.removeprefix("job."), text) for f, text in error.violations]
    if violations:
        _fail(source, violations)
    return request


def _count(data: Any, budget: int) -> int:
    """Values in `data`, or some number above `budget`."""
    left, waiting = budget, [data]
    while waiting and left >= 0:
        item = waiting.pop()
        left -= 1
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return budget - left


def _known_fields(data: Mapping[Any, Any]) -> tuple[dict[str, Any], list[Violation]]:
    """The fields that a job file may have at its top, and a violation for each of the others."""
    names = (*_JOB_FIELDS, "batch_size", *_PLAN_FIELDS)
    known = {key: value for key, value in data.items() if key in names}
    violations = []
    for key in data.keys() - known.keys():
        hint = did_you_mean(key, names) or f"; one of {', '.join(names)}"
        violations.append(Violation(str(key), f"unknown field{hint}"))
    if "batch_size" in known and "micro_batch_size" in known:
        del known["batch_size"]
        violations.append(Violation("batch_size", "is the same as micro_batch_size: give one"))
    return known, sorted(violations, key=lambda v: v.field)


def _model_of_file(data: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """The fields of a model whose `config` is in a file. Raises JobFileError for that file."""
    if folder is None:
        raise JobFileError("model.config_file: no file can be read here; write it out as config")
    others = {key: value for key, value in data.items() if key != "config_file"}
    path = data["config_file"]
    if not isinstance(path, str):
        raise JobFileError("model.config_file must be the path of a config.json")
    options = others.pop("config", None) or {}
    catalog = model_from_config(folder / path, **options).catalog
    assert catalog is not None
    return {"name": catalog.name, "config": catalog.config, **others}


def _fail(source: str, violations: list[Violation]) -> NoReturn:
    count = "a mistake" if len(violations) == 1 else f"{len(violations)} mistakes"
    lines = "".join(f"\n  {violation}" for violation in violations)
    raise JobFileError(f"{source} has {count}:{lines}", violations=violations)
