"""How long an estimate takes, beside other ways to the same answer, in one run.

    python bench/speed.py [--repeat 3] [--models resnet50,vit_b_16,bert,llama] [--no-real]

For each model, in a process that has everything imported (a warm worker): the timeline at one batch
size and at every batch size (two executions), PyTorch's MemTracker under FakeTensorMode on the
same two steps, and two real steps on the CPU at batch 1. PyTorch's cache of operator shapes is
emptied before each. Then the batch-size search over the whole GPU catalog against one estimate.
Medians; the ratios are what to quote. `bench/load.py` compares a kept answer with the health check.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.types import CatalogModel, GpuTarget, Model, Optimizer, OptimizerType, TrainingJob
from memplan_server import models
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure import real
from memplan_server.planning import Target, estimate_memory, recommend_batch_sizes
from memplan_server.simulate import trace as tracing
from memplan_server.simulate import worker
from peers import mem_tracker
from reporting.predictions import Traced

GPU = (8, 0)
BATCH_SIZE = 8
JOBS = {
    "resnet50": "torchvision/resnet50",
    "vit_b_16": "torchvision/vit_b_16",
    "bert": "transformers/bert",
    "llama": "transformers/llama",
}
TOO_LARGE_TO_RUN = ("llama",)
"""Seven billion float32 parameters with gradients take more memory than a small machine has."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--models", default=",".join(JOBS))
    parser.add_argument("--only-search", action="store_true")
    parser.add_argument("--no-real", action="store_true", help="leave out the real steps")
    options = parser.parse_args()
    worker.initialize()
    for name in [] if options.only_search else options.models.split(","):
        _compare(name, options.repeat, real=not options.no_real and name not in TOO_LARGE_TO_RUN)
    _search(options.repeat)


def job(name: str) -> TrainingJob:
    """The job measured: SGD, fp32, default inputs."""
    catalog = CatalogModel(name=JOBS[name])
    return normalize(
        TrainingJob(
            model=Model(catalog=catalog),
            optimizer=Optimizer(type=OptimizerType.SGD),
            micro_batch_size=BATCH_SIZE,
        )
    )


def _compare(name: str, repeat: int, *, real: bool) -> None:
    described = job(name)
    built = models.build(described)
    ways: dict[str, Callable[[], object]] = {
        "one batch size": lambda: tracing.trace_at(described, built, GPU, BATCH_SIZE),
        "every batch size": lambda: tracing.trace_affine(described, built, GPU),
        "MemTracker, two fake steps": lambda: mem_tracker.peak_bytes(described, built),
    }
    if real:
        ways["two real steps, CPU, batch 1"] = lambda: _real_steps(described)
    times = _in_turn(ways, repeat)
    print(f"\n{JOBS[name]}")
    for way, seconds in times.items():
        ratios = [seconds / times[w] for w in ("one batch size", "every batch size")]
        print(f"  {way:30} {seconds:8.2f} s   {ratios[0]:6.2f} x one   {ratios[1]:6.2f} x every")


def _in_turn(ways: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median seconds of each, measured in turn so that a slow moment meets all alike."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way, call in ways.items():
            FakeTensorMode.cache_clear()
            start = time.perf_counter()
            call()
            seconds[way].append(time.perf_counter() - start)
    return {way: statistics.median(s) for way, s in seconds.items()}


def _real_steps(described: TrainingJob) -> None:
    made = real.make(replace(described, micro_batch_size=1), torch.device("cpu"))
    made.built.module.eval()  # a single image has no batch statistics on 1x1 maps
    real.loop_over(made).run(2)


def _search(repeat: int) -> None:
    described = job("resnet50")
    catalog = GpuCatalog.load().all()
    targets = [Target(GpuTarget(gpu_type=g.name), g) for g in catalog]
    times = _in_turn(
        {
            "one cold estimate": lambda: estimate_memory(Traced(), described, catalog[0]),
            "cold batch-size search": lambda: recommend_batch_sizes(Traced(), described, targets),
        },
        repeat,
    )
    estimate, search = times.values()
    print(f"\ntorchvision/resnet50, {len(catalog)} GPU types")
    print(f"  one cold estimate {estimate:.2f} s, batch-size search over all {search:.2f} s")
    print(f"  ratio {search / estimate:.2f}")


if __name__ == "__main__":
    main()
