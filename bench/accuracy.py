"""Estimates against measurements.

    python bench/accuracy.py DIR [--out docs/accuracy.md] [--csv FILE] [--no-peers]
        [--peers-cache FILE] [--only milabench,timm-a100,timm-rtx3090,corpus] [--limit N]
        [--processes N]

DIR holds public tables (`measured.py` says which); the lines of `bench/corpus` are taken as well.
Each job is simulated once; beside the estimates stand PyTorch's MemTracker, the textbook formula
and the rule of `accelerate estimate-memory` (`peers/`), which take most of the time, so that
`--peers-cache` keeps what they say. `--out` writes the page and its plots; the terminal gets the
goals, the errors and the rows that are furthest off.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import measured
from measured import Row
from reporting import document, sections
from reporting.answers import PEERS, Answers
from reporting.goals import goals
from reporting.predictions import Outcome, predict
from reporting.scores import ALLOCATED, DRIVER_USED, RESERVED, Scored, scored

TABLES = (measured.CORPUS, measured.MILABENCH, measured.TIMM_A100, measured.BRACKETS)
CORPUS_FOLDER = Path(__file__).parent / "corpus"
WORST_ROWS = 20
PREDICTED = (
    ALLOCATED,
    RESERVED,
    "device_used_bytes",
    DRIVER_USED,
    "lower_bound_bytes",
    "upper_bound_bytes",
    "capacity_bytes",
    "fits",
)


def main(arguments: Sequence[str]) -> int:
    """Read, predict, print; 0."""
    options = _parser().parse_args(arguments)
    rows = _limited(_read(options), options.limit)
    peers = Answers(options.peers_cache) if options.peers else None
    outcomes = predict(rows, peers=peers, processes=options.processes, progress=_progress)
    if options.csv is not None:
        _write_csv(options.csv, outcomes)
    items = scored(outcomes)
    if options.out is not None:
        document.write(options.out, outcomes, items, goals(items))
    _print(outcomes, items)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--corpus", type=Path, default=CORPUS_FOLDER, metavar="DIR")
    parser.add_argument("--only", default=",".join(TABLES), metavar="TABLES")
    parser.add_argument("--limit", type=int, default=0, help="models per table; 0 is all")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--peers-cache", type=Path, metavar="FILE", help="keep their answers there")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every prediction there")
    return parser


def _read(options: argparse.Namespace) -> list[Row]:
    """The rows of the tables asked for."""
    found = [*measured.corpus_rows(options.corpus), *measured.public_rows(options.directory)]
    return [row for row in found if row.table in options.only.split(",")]


def _limited(rows: Sequence[Row], limit: int) -> list[Row]:
    """All rows of `limit` models of each table, at even distances."""
    chosen = set()
    for table in TABLES:
        models = list(dict.fromkeys(row.model for row in rows if row.table == table))
        count = min(limit or len(models), len(models))
        chosen |= {(table, models[i * len(models) // count]) for i in range(count)}
    return [row for row in rows if (row.table, row.model) in chosen]


def _progress(done: int, jobs: int) -> None:
    print(f"\r{done} of {jobs} jobs", end="\n" if done == jobs else "", file=sys.stderr, flush=True)


def _print(outcomes: Sequence[Outcome], items: Sequence[Scored]) -> None:
    driver_used = [s for s in items if s.row.driver_used_bytes is not None]
    parts = [sections.goals_table(goals(items)), sections.own_corpus(items)]
    if driver_used:
        parts += [sections.by_table(driver_used), sections.beside_peers(driver_used)]
        parts.append(sections.bounds_held(driver_used))
        parts.append(sections.errors_by("family", driver_used, lambda s: s.prediction.family))
    parts += [sections.fits_or_not(items), sections.verdicts(items)]
    parts += [sections.wrong_answers(items), sections.worst(driver_used, WORST_ROWS)]
    reasons = {o.row.model: o.reason for o in outcomes if o.prediction is None}
    parts += [f"no estimate: {model}: {reason}" for model, reason in sorted(reasons.items())]
    print("\n\n".join(part for part in parts if part))


def _write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """A line for each row, with or without a prediction."""
    quantities = (ALLOCATED, RESERVED, DRIVER_USED)
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(
            ["table", "model", "family", "gpu_type", "precision", "optimizer", "batch_size", "ran"]
            + [f"measured_{name}" for name in quantities]
            + list(PREDICTED)
            + [peer.replace(" ", "_") + "_bytes" for peer in PEERS]
            + ["fake_tensor_bytes_of_the_table", "reason"]
        )
        out.writerows(_csv_line(outcome, quantities) for outcome in outcomes)


def _csv_line(outcome: Outcome, quantities: Sequence[str]) -> list[object]:
    row, prediction = outcome.row, outcome.prediction
    family = row.family if prediction is None else prediction.family
    job = row.job
    return [
        *(row.table, row.model, family, row.gpu_type),
        *(job.precision.value, job.optimizer.type.value, job.micro_batch_size, row.ran),
        *(getattr(row, name) for name in quantities),
        *(None if prediction is None else getattr(prediction, name) for name in PREDICTED),
        *(None if prediction is None else prediction.peers.get(peer) for peer in PEERS),
        *(row.fake_tensor_bytes, outcome.reason),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
