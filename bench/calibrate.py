"""How far measurements are from estimates, by family of jobs.

    python bench/calibrate.py DIR [--out server/memplan_server/planning/residuals.toml]

Writes the quantiles that the bounds of estimates are made from (`planning/uncertainty.py`), as
split conformal prediction takes them. DIR holds public tables (see `measured.py`); the lines of
`bench/corpus` are taken as well. How well the quantiles hold is scored on models they were not
taken from, a tenth of them at a time.

Rows that a table's own other rows contradict are left out (`reporting/spoiled.py`).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import measured
from memplan_server.planning.residual import residual
from memplan_server.planning.uncertainty import CONFIDENCE, FAMILIES
from reporting.predictions import predict
from reporting.scores import Scored, scored
from reporting.spoiled import sound

CONFIDENCES = (0.90, 0.95, 0.98, 0.99)
SLACK_MIB = 40
"""Contexts differ by about so much between jobs on one GPU: kernels are loaded when first used."""

FOLDS = 10

_MIB = 1 << 20
_TOLERATED = 0.005
_OUT = Path("server/memplan_server/planning/residuals.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """How far a measurement is off its estimate (`planning/residual.py`)."""

    family: str
    model: str
    above: float
    below: float
    expected: float = 1.0
    """The estimate and the slack, as a share of the measurement."""
    unsure: float = 0.0
    """What can be wrong, as a share of the measurement."""

    def height(self, margin: float) -> float:
        """How far an upper bound is above the measurement, as a share of it."""
        return self.expected + margin * self.unsure - 1


def main() -> None:
    """Predict, take quantiles, score them, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, default=_OUT)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    corpus = measured.corpus_rows(Path(__file__).parent / "corpus")
    rows = [
        r
        for r in (*corpus, *measured.public_rows(options.directory))
        if r.driver_used_bytes is not None
    ]
    items = scored(predict(rows, peers=None, processes=options.processes))
    kept = sound(items)
    found = [measured_residual(item) for item in kept]
    options.out.write_text(document(found, len(items) - len(kept)), encoding="utf-8")
    print(held_out(found))


def measured_residual(item: Scored) -> Residual:
    """Of driver-used bytes."""
    used, slack = item.row.driver_used_bytes, SLACK_MIB * _MIB
    assert used is not None
    expected, unsure = item.predicted("driver_used_bytes"), item.prediction.unsure_bytes
    above, below = residual(used - expected, slack, unsure)
    return Residual(
        family=item.prediction.bounds_family,
        model=item.row.model,
        above=above,
        below=below,
        expected=(expected + slack) / used,
        unsure=unsure / used,
    )


def quantile(values: Iterable[float], confidence: float) -> float:
    """The ceil((n + 1) c)-th smallest of n; the largest where n is too small for c."""
    ordered = sorted(values)
    return ordered[min(_rank(len(ordered), confidence), len(ordered)) - 1]


def _rank(count: int, confidence: float) -> int:
    return math.ceil((count + 1) * confidence)


def _margin(some: Sequence[float], everybodys: Sequence[float], confidence: float) -> float:
    """The family's quantile; where it has too few rows for it, no less than that of all rows.

    The largest of n holds for the next with probability n / (n + 1).
    """
    own = quantile(some, confidence)
    if len(some) / (len(some) + 1) >= confidence - _TOLERATED:
        return own
    return max(own, quantile(everybodys, confidence))


def document(found: Sequence[Residual], left_out: int) -> str:
    """The TOML file."""
    lines = [
        "# Written by bench/calibrate.py: quantiles of residuals, as shares of the unsure bytes.",
        f"# Left out: {left_out} rows that others of their model contradict, or that stand alone.",
        f"slack_mib = {SLACK_MIB}",
    ]
    for name in FAMILIES:
        some = [r for r in found if r.family == name]
        if some:
            lines += ["", f"[{name}]", f"rows = {len(some)}", f"models = {_models(some)}"]
            lines += [_table("above", [r.above for r in some], [r.above for r in found])]
            lines += [_table("below", [r.below for r in some], [r.below for r in found])]
    return "\n".join(lines) + "\n"


def _models(some: Sequence[Residual]) -> int:
    return len({r.model for r in some})


def _table(name: str, values: Sequence[float], everybodys: Sequence[float]) -> str:
    margins = ((c, _margin(values, everybodys, c)) for c in CONFIDENCES)
    quantiles = (f'"{c:.2f}" = {math.ceil(margin * 1000) / 1000:.3f}' for c, margin in margins)
    return f"{name} = {{ {', '.join(quantiles)} }}"


def held_out(found: Sequence[Residual]) -> str:
    """How often margins hold for models that they were not taken from, and how high they are."""
    models = sorted({r.model for r in found})
    pairs: list[tuple[Residual, float]] = []
    for fold in range(FOLDS):
        out = set(models[fold::FOLDS])
        margins = _margins([r for r in found if r.model not in out])
        worst = max(margins.values())
        pairs += [(r, margins.get(r.family, worst)) for r in found if r.model in out]
    lines = [f"upper bounds at {CONFIDENCE:.0%}, of models that they were not taken from:"]
    for name in (*FAMILIES, "all"):
        some = [(r, margin) for r, margin in pairs if name in (r.family, "all")]
        if some:
            held = sum(r.above <= margin for r, margin in some)
            height = statistics.median(r.height(margin) for r, margin in some)
            lines.append(
                f"  {name:28} hold for {held} of {len(some)} ({held / len(some):.1%}), "
                f"median height {height:.1%}"
            )
    return "\n".join(lines)


def _margins(found: Sequence[Residual]) -> dict[str, float]:
    """Upper margins at the default confidence, by family."""
    everybodys = [r.above for r in found]
    return {
        name: _margin([r.above for r in found if r.family == name], everybodys, CONFIDENCE)
        for name in {r.family for r in found}
    }


if __name__ == "__main__":
    main()
