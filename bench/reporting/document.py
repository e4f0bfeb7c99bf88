"""The page `docs/accuracy.md`, written whole from the outcomes."""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from measured import BRACKETS, CORPUS, MILABENCH, TIMM_A100
from memplan_server.gpus.catalog import GpuCatalog
from reporting import plots, sections
from reporting.answers import LIBRARIES
from reporting.goals import NOT_JUDGED, Goal
from reporting.markdown import mib, table
from reporting.predictions import Outcome
from reporting.scores import Scored

__all__ = ["write"]

_TABLES = {
    CORPUS: "`bench/corpus`, our own runs, all three quantities",
    MILABENCH: "milabench's scaling sweeps, driver-used bytes; torch 2.6.0 with CUDA 12.6, "
    "transformers 4.49.0, torchvision 0.21",
    TIMM_A100: "GPUMemNet's timm sweep, fp32, driver-used bytes; the CUDA stack is old, its "
    "versions and the optimizer are not recorded (`bench/measured.py` says what is assumed)",
    BRACKETS: "of timm's training results, the largest batch size that ran and the next larger one "
    "that was tried and failed; torch 1.12, which had no fused attention, AMP float16, SGD with "
    "momentum",
}
_TEXT = """# Accuracy

How far the estimates are from memory measured on real GPUs. This page and its plots are written by

    make accuracy DIR=folder    # bench/accuracy.py folder --out docs/accuracy.md

where `folder` holds the public tables (`bench/measured.py` says which); our own measurements are
read from `bench/corpus`. Predicted with
{versions}.

An error is predicted / measured - 1; median, mean, percentiles and worst are of its size, the bias
is the median with its sign, and "too low" is the share of rows that need more than was predicted.
Bounds are stated with {confidence}.

## Goals

{goals}

{not_judged}

## What was measured, and by whom

{tables}

{described}

{left_out}

The estimate takes from measurements only the context bytes of each GPU type, for some of them from
these tables:

{contexts}

The rows of {timm_a100} have a CUDA stack that loads every kernel at once, so that table gets one
constant for all its rows instead: reserved bytes {constant}, chosen, as each peer's constant, to
make the mean error of the table the smallest. Its bounds move with it, and are not widened for the
context of the GPU type, which is an estimate. Rows of timm's script get the bytes that its loader
holds besides, and so do the peers' answers for them.

## Our own corpus

{corpus}

## Driver-used bytes

{by_table}

{plot_predicted}

{plot_batch}

## Beside other ways

On the rows that every way has an answer for. None of the peers counts the CUDA context; "+
constant" adds the one that suits it best on each GPU type, which a user does not have.

{peers}

{plot_peers}

- *MemTracker*: PyTorch's `torch.distributed._tools.mem_tracker` under `FakeTensorMode`, two steps
  of the same training loop on the CPU's kernels; executed at the smallest and the largest batch
  size of each job, on the line between them elsewhere.
- *Textbook formula*: parameters x (weight + gradient + optimizer states) + activations. Activations
  are the outputs of all modules without submodules in one forward pass, in the type they are
  returned in, without those that share storage with an input of the module.
- *accelerate estimate-memory*: what it shows as "Training using Adam". The bytes of parameters and
  buffers in float32, times 4 in fp32, times 2 in half or mixed precision; neither batch size nor
  optimizer count (`estimate_training_usage` in `accelerate/commands/estimate.py`).

## Fits or not

Whether a replay with the card's capacity runs through, for the tables that know of some rows that
they ran out of memory. Peers get the limit of predicted bytes with which they are right most often,
and so does a line of ours: how far it is above the other tells what a wrong capacity or context
costs.

{fits}

What the bounds say of the same rows:

{verdicts}

## Bounds

{bounds}

A row is spoiled when its table contradicts it: it is below the fake-tensor peak that the table has
for it, or more than 15 % off the line through the other rows of its model on the GPU, as memory is
nearly a line in the batch size. Those far above it were most likely taken in the moment in which
`cudnn.benchmark` tries algorithms in whatever memory is free, which makes no job fail. Models at
fewer than three batch sizes cannot be judged and are left out there, too.

## Where the errors are

All tables together, driver-used bytes. The family of a model is the corpus's word or, in public
tables, follows from its layers: a *depthwise-cnn* has a depthwise convolution, a *grouped-cnn*
another grouped one, a *hybrid* convolutions and attention; a convolution that cuts an image into
patches does not count as one.

{by_family}

{by_gpu}

{by_precision}

{by_batch}

{plot_groups}
"""


def write(
    out: Path, outcomes: Sequence[Outcome], items: Sequence[Scored], goals: Sequence[Goal]
) -> None:
    """Write the page to `out` and its plots into the folder beside it that has its name."""
    folder = out.with_suffix("")
    drawn = plots.draw(items, folder)
    measured = [s for s in items if s.row.driver_used_bytes is not None]
    judged_nothing = [g.measure for g in goals if g.reached is None]
    values = {
        "versions": ", ".join(f"{n} {importlib.metadata.version(n)}" for n in LIBRARIES),
        "confidence": _confidence(items),
        "goals": sections.goals_table(goals),
        "not_judged": _not_judged(judged_nothing),
        "tables": _tables(outcomes),
        "described": _described(outcomes),
        "left_out": _left_out(outcomes, items),
        "contexts": _contexts(items),
        "timm_a100": f"`{TIMM_A100}`",
        "constant": _constant(items),
        "corpus": sections.own_corpus(items) or f"{NOT_JUDGED.capitalize()}.",
        "by_table": _or_nothing(sections.by_table, measured),
        "peers": sections.beside_peers(measured) or _no_peers(measured),
        "fits": _or_nothing(sections.fits_or_not, items),
        "verdicts": _or_nothing(sections.verdicts, items),
        "bounds": _or_nothing(sections.bounds_held, measured),
        **_groups(measured),
        "plot_predicted": _image(drawn, folder, "predicted-measured"),
        "plot_batch": _image(drawn, folder, "error-batch-size"),
        "plot_peers": _image(drawn, folder, "peers"),
        "plot_groups": _image(drawn, folder, "error-groups"),
    }
    text = _TEXT.format_map(values)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    out.write_text(text.rstrip() + "\n")


def _confidence(items: Sequence[Scored]) -> str:
    found = sorted({s.prediction.confidence for s in items})
    return " or ".join(f"{c:.0%} confidence" for c in found) or "no confidence stated"


def _not_judged(measures: Sequence[str]) -> str:
    if not measures:
        return ""
    return (
        "What is not judged waits for lines in `bench/corpus`, which its script makes on a machine "
        "with\na CUDA GPU. Speed has a benchmark of its own, `bench/speed.py`."
    )


def _tables(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for name in _TABLES:
        some = [o for o in outcomes if o.row.table == name]
        gpus = sorted({o.row.gpu_type for o in some})
        models = len({o.row.model for o in some})
        rows.append((name, str(len(some)), str(models), ", ".join(gpus) or "-"))
    return table(("table", "rows", "models or jobs", "GPUs"), rows)


def _described(outcomes: Sequence[Outcome]) -> str:
    """What each table is; the corpus says with which versions it was measured."""
    own = {
        ", ".join(f"{name} {version}" for name, version in o.row.library_versions.items())
        for o in outcomes
        if o.row.library_versions
    }
    versions = dict.fromkeys(_TABLES, "") | {CORPUS: "".join(f"; {said}" for said in sorted(own))}
    return "\n".join(_item(f"`{name}`: {_TABLES[name]}{versions[name]}.") for name in _TABLES)


def _left_out(outcomes: Sequence[Outcome], items: Sequence[Scored]) -> str:
    without = {o.row.model: o.reason for o in outcomes if o.prediction is None}
    rows = sum(o.prediction is None for o in outcomes)
    large = len(outcomes) - rows - len(items)
    parts = []
    if without:
        listed = [_item(f"{model}: {reason}") for model, reason in sorted(without.items())]
        parts.append(f"Without an estimate or a measurement, and not counted ({_rows(rows)}):\n")
        parts += listed
    if large:
        parts.append(
            f"\nLeft out ({_rows(large)}): models of `{TIMM_A100}` above 300 M parameters, for "
            "which the\ntable is known to be wrong."
        )
    return "\n".join(parts)


def _item(text: str) -> str:
    return textwrap.fill(f"- {text}", 100, subsequent_indent="  ", break_on_hyphens=False)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _contexts(items: Sequence[Scored]) -> str:
    catalog = GpuCatalog.load()
    rows = []
    for name in sorted({s.row.gpu_type for s in items}):
        gpu_type = catalog.get(name)
        source = gpu_type.sources.get("context_bytes", "-")
        rows.append((name, mib(gpu_type.context_bytes), source))
    return table(("GPU type", "context MiB", "from"), rows)


def _constant(items: Sequence[Scored]) -> str:
    for s in items:
        if s.row.table == TIMM_A100:
            added = s.shift_bytes + s.prediction.kept_bytes
            added += s.prediction.device_used_bytes - s.prediction.peak_reserved_bytes
            return f"plus {mib(added)} MiB"
    return "plus a constant"


def _groups(items: Sequence[Scored]) -> dict[str, str]:
    by: dict[str, tuple[str, Callable[[Scored], str]]] = {
        "by_family": ("family", lambda s: s.prediction.family),
        "by_gpu": ("GPU type", lambda s: s.row.gpu_type),
        "by_precision": ("precision", lambda s: s.row.job.precision.value),
        "by_batch": ("batch size", sections.batch_size_class),
    }
    return {
        name: sections.errors_by(title, items, key) if items else f"{NOT_JUDGED.capitalize()}."
        for name, (title, key) in by.items()
    }


def _or_nothing(section: Callable[[Sequence[Scored]], str], items: Sequence[Scored]) -> str:
    return (section(items) if items else "") or f"{NOT_JUDGED.capitalize()}."


def _no_peers(measured: Sequence[Scored]) -> str:
    return "Left out of this run (`--no-peers`)." if measured else f"{NOT_JUDGED.capitalize()}."


def _image(drawn: Mapping[str, str], folder: Path, stem: str) -> str:
    return (
        f"![{drawn[stem]}]({folder.name}/{stem}.svg)\n\n*{drawn[stem]}.*" if stem in drawn else ""
    )
