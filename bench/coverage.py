"""How many of the catalogs' models get an estimate.

    python bench/coverage.py --torchvision --timm 200 --transformers 60 --diffusers \\
        --results coverage.jsonl --markdown docs/models.md

Every model is built with its defaults and its training step is simulated (SGD, fp32, on an A100). A
number after a library takes a sample: of the sorted list of N names those at positions
floor(i * N / number), i = 0, 1, ...; --offset takes those so many places further on. One worker
process at low priority; a model that takes longer than the time limit or kills the worker counts as
failed. Models that already have an estimate in the results file are not run again, so a run can be
continued.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, dataclass
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from memplan.types import CatalogModel, Model, TrainingJob
from memplan_server.errors import MemplanError
from memplan_server.jobs import normalize
from memplan_server.timeline import Timeline

LIBRARIES = ("torchvision", "timm", "transformers", "diffusers")
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
    size: int = 0
    """How many models the library has in this group."""


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
            for group, name in _sample(names[library], number, options.offset)
            if options.only in name
        ]
        sizes = Counter(group for library in LIBRARIES for group, _ in names[library])
        results = list(_run(pool, chosen, sizes, options))
        pool.stop()
    print(_summary(results))
    if options.markdown is not None:
        options.markdown.write_text(_markdown(results, wanted, options.timeout))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for library in LIBRARIES:
        parser.add_argument(f"--{library}", nargs="?", type=int, const=0, metavar="NUMBER")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="take another sample")
    parser.add_argument("--only", default="", metavar="TEXT", help="names that contain this")
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="JSON lines, read and added to"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page")
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
        group = "torchvision, segmentation, detection and video" if other else library
        names[library].append((group, name))
    return {library: sorted(found) for library, found in names.items()}


def trace(name: str) -> bytes:
    """The timeline of a plain job on the model. In the worker."""
    from memplan_server.simulate import worker

    job = TrainingJob(model=Model(catalog=CatalogModel(name=name)), micro_batch_size=4)
    return worker.trace(normalize(job), COMPUTE_CAPABILITY)


def _sample(
    names: Sequence[tuple[str, str]], number: int, offset: int = 0
) -> list[tuple[str, str]]:
    """All names, or `number` of them at even distances, each `offset` places further on."""
    if not 0 < number < len(names):
        return list(names)
    return [names[(i * len(names) // number + offset) % len(names)] for i in range(number)]


def _run(
    pool: ProcessPool,
    chosen: Sequence[tuple[str, str]],
    sizes: Mapping[str, int],
    options: argparse.Namespace,
) -> Iterator[Result]:
    done = _read(options.results)
    for position, (group, name) in enumerate(chosen, 1):
        result = done.get(name)
        if result is None:
            result = _one(pool, group, name, options.timeout, sizes[group])
            outcome = "ok" if not result.reason else f"FAILED: {result.reason}"
            print(f"{position}/{len(chosen)} {name} {result.seconds:.1f} s {outcome}", flush=True)
            if options.results is not None:
                with options.results.open("a") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
        yield result


def _read(file: Path | None) -> dict[str, Result]:
    """Estimates in a results file, by model; failures are tried again."""
    if file is None or not file.exists():
        return {}
    found = [Result(**json.loads(line)) for line in file.read_text().splitlines()]
    return {result.name: result for result in found if not result.reason}


def _one(pool: ProcessPool, group: str, name: str, timeout: float, size: int) -> Result:
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
        size=size,
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


def _markdown(results: Sequence[Result], wanted: Mapping[str, int | None], timeout: float) -> str:
    groups = {r.group: [o for o in results if o.group == r.group] for r in results}
    arguments = " ".join(
        f"--{library} {number or ''}".rstrip()
        for library, number in wanted.items()
        if number is not None
    )
    return "\n".join(
        [
            _HEAD.format(versions=_versions(), arguments=arguments, timeout=timeout),
            "| models | known | tried | with an estimate | share | each batch size apart |",
            "|---|---:|---:|---:|---:|---:|",
            *(_row(group, own) for group, own in groups.items()),
            "",
            _APART,
            "",
            "## Without an estimate",
            "",
            *(f"- `{r.name}`: {r.reason.replace('|', '/')}" for r in results if r.reason),
            *(_names(group, own) for group, own in groups.items()),
            "",
        ]
    )


_HEAD = """# Models

`memplan models` lists every name. This page says which of them get an estimate as they are, with
their default configuration and input. It is written by

    python bench/coverage.py {arguments} --markdown docs/models.md

with {versions}.

Each model is built and its training step simulated (SGD, fp32, micro-batch 4, on an A100), with a
limit of {timeout:g} s. Of a library with N names of which k were tried, they are those at positions
floor(i * N / k), i = 0 ... k - 1, of the sorted list. Causes of failures seen in these samples were
mended where possible, so the share among models outside them may be lower.
"""

_APART = """Each batch size apart: the sequence of allocations depends on the batch size, so every
batch size asked about is simulated anew, which takes longer."""


def _versions() -> str:
    libraries = ("torch", *LIBRARIES)
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)


def _row(group: str, own: Sequence[Result]) -> str:
    good = [r for r in own if not r.reason]
    apart = sum(not r.affine for r in good)
    share = 100 * len(good) / len(own)
    return f"| {group} | {own[0].size} | {len(own)} | {len(good)} | {share:.1f} % | {apart} |"


def _names(group: str, own: Sequence[Result]) -> str:
    named = (f"`{r.name.partition('/')[2]}`" for r in own if not r.reason)
    return f"\n## With an estimate: {group}\n\n{textwrap.fill(', '.join(named), 100)}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
