"""How many of the catalogs' models get an estimate.

    python bench/coverage.py --torchvision --timm 200 --transformers 40
    python bench/coverage.py --transformers --markdown coverage.md

Every model is built with its defaults and its training step is simulated (SGD, fp32, on an A100). A
number after a library takes a sample: of the sorted list of N names those at positions
floor(i * N / number), i = 0, 1, ... One worker process at low priority; a model that takes longer
than the time limit or kills the worker counts as failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from memplan.types import CatalogModel, Model, TrainingJob
from memplan_server.errors import MemplanError
from memplan_server.jobs import normalize
from memplan_server.timeline import Timeline

LIBRARIES = ("torchvision", "timm", "transformers")
COMPUTE_CAPABILITY = (8, 0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One model's outcome."""

    group: str
    name: str
    seconds: float
    reason: str = ""
    """Why there is no estimate; empty when there is one."""
    parameters: int = 0
    affine: bool = True


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; 0."""
    options = _parser().parse_args(arguments)
    wanted = {library: getattr(options, library) for library in LIBRARIES}
    pool = ProcessPool(
        max_workers=1,
        initializer=start_worker,
        context=multiprocessing.get_context("spawn"),
    )
    with pool:
        names = pool.schedule(list_names).result()
        chosen = [
            (group, name)
            for library, number in wanted.items()
            if number is not None
            for group, name in _sample(names[library], number)
            if options.only in name
        ]
        results = list(_run(pool, chosen, options.timeout))
        pool.stop()
    print(_summary(results))
    if options.markdown is not None:
        options.markdown.write_text(_markdown(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for library in LIBRARIES:
        parser.add_argument(f"--{library}", nargs="?", type=int, const=0, metavar="NUMBER")
    parser.add_argument("--only", default="", metavar="TEXT", help="names that contain this")
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a table")
    return parser


def start_worker() -> None:
    """Once in the worker process."""
    from memplan_server.simulate import worker

    os.nice(10)
    worker.initialize(None)


def list_names() -> dict[str, list[tuple[str, str]]]:
    """(group, name) of every model by library, sorted by group and name. In the worker."""
    from memplan_server.models import libraries
    from memplan_server.simulate import worker

    models = libraries.load("torchvision").models
    classification = {f"torchvision/{name}" for name in models.list_models(models)}
    names: dict[str, list[tuple[str, str]]] = {library: [] for library in LIBRARIES}
    for name in worker.list_models():
        library = name.partition("/")[0]
        other = library == "torchvision" and name not in classification
        group = "torchvision, segmentation and video" if other else library
        names[library].append((group, name))
    return {library: sorted(found) for library, found in names.items()}


def trace(name: str) -> bytes:
    """The timeline of a plain job on the model. In the worker."""
    from memplan_server.simulate import worker

    job = TrainingJob(model=Model(catalog=CatalogModel(name=name)), micro_batch_size=4)
    return worker.trace(normalize(job), COMPUTE_CAPABILITY)


def _sample(names: Sequence[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    """All names, or `number` of them at even distances."""
    if not 0 < number < len(names):
        return list(names)
    return [names[i * len(names) // number] for i in range(number)]


def _run(pool: ProcessPool, chosen: Sequence[tuple[str, str]], timeout: float) -> Iterator[Result]:
    for position, (group, name) in enumerate(chosen, 1):
        result = _one(pool, group, name, timeout)
        outcome = "ok" if not result.reason else f"FAILED: {result.reason}"
        print(f"{position}/{len(chosen)} {name} {result.seconds:.1f} s {outcome}", flush=True)
        yield result


def _one(pool: ProcessPool, group: str, name: str, timeout: float) -> Result:
    start = time.monotonic()
    timeline, reason = None, ""
    try:
        timeline = Timeline.from_bytes(pool.schedule(trace, args=(name,), timeout=timeout).result())
    except FutureTimeoutError:
        reason = f"takes longer than {timeout:g} s"
    except ProcessExpired as error:
        reason = f"the worker died with code {error.exitcode}"
    except MemplanError as error:
        reason = str(error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    return Result(
        group=group,
        name=name,
        seconds=time.monotonic() - start,
        reason=reason,
        parameters=timeline.parameter_count if timeline else 0,
        affine=timeline.affine if timeline else True,
    )


def _summary(results: Sequence[Result]) -> str:
    lines = []
    for group in dict.fromkeys(r.group for r in results):
        own = [r for r in results if r.group == group]
        good = [r for r in own if not r.reason]
        exact = sum(not r.affine for r in good)
        seconds = sum(r.seconds for r in own)
        share = 100 * len(good) / len(own)
        lines.append(
            f"{group}: {len(good)} of {len(own)} ({share:.1f} %), {exact} of them traced for each "
            f"batch size apart; {seconds:.0f} s"
        )
        lines += [f"  {r.name}: {r.reason}" for r in own if r.reason]
    return "\n".join(lines)


def _markdown(results: Sequence[Result]) -> str:
    lines = ["| model | parameters | estimate |", "|---|---:|---|"]
    for r in results:
        good = "yes" if r.affine else "yes, for each batch size apart"
        outcome = f"no: {r.reason}" if r.reason else good
        lines.append(f"| `{r.name}` | {r.parameters:,} | {outcome.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
