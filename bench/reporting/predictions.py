"""What is predicted for each measurement, by the simulation and by its peers.

    outcomes = predict(rows, peers=Answers(None), processes=2)  # in the order of the rows

The rows of one job (at all its batch sizes, on all its GPUs) are one task, so that it is traced
once for each kernel class. Several processes share the tasks; the answers do not depend on how.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

from measured import Row
from memplan.types import GpuType, TrainingJob
from memplan_server.errors import MemplanError
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import capability, kernel_class
from memplan_server.planning import estimate_memory, uncertainty
from memplan_server.planning.probe import Probe
from memplan_server.planning.residual import unsure_bytes
from memplan_server.simulate import worker
from memplan_server.timeline import Category, Timeline
from peers import fake
from reporting import answers
from reporting.answers import Answers, BySize
from reporting.families import family

__all__ = ["Outcome", "Prediction", "Traced", "predict"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What is expected for one measurement; bytes."""

    family: str = ""
    """The kind of model: the table's word, or one of `families.DERIVED`."""
    traits: tuple[str, ...] = ()
    """Those of the timeline."""
    bounds_family: str = ""
    """The family whose margins the bounds have; see `planning.uncertainty`."""
    parameter_count: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    unsure_bytes: int = 0
    """What can be wrong; see `planning.residual`."""
    lower_bound_bytes: int
    """Of device-used bytes, as is `upper_bound_bytes`."""
    upper_bound_bytes: int
    confidence: float
    kept_bytes: int
    """What the driver keeps of the card for itself; nvidia-smi counts it as used."""
    loader_bytes: int = 0
    """What the data loader holds beyond the loop's own batch."""
    capacity_bytes: int
    fits: bool
    """Whether the replay with the card's capacity succeeds."""
    peers: Mapping[str, int] = field(default_factory=dict)
    """By names of `answers.PEERS`, those that gave an answer: bytes of tensors and what the loader
    holds, no context."""

    @property
    def driver_used_bytes(self) -> int:
        """What nvidia-smi is expected to show."""
        return self.device_used_bytes + self.beside_bytes

    @property
    def beside_bytes(self) -> int:
        """What nvidia-smi shows besides what the job takes."""
        return self.kept_bytes + self.loader_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A measurement and what became of its prediction."""

    row: Row
    prediction: Prediction | None
    reason: str = ""
    """Why there is no prediction."""


class Traced:
    """Timelines made in this process, each once for all GPUs and batch sizes it holds for."""

    def __init__(self) -> None:
        self._made: dict[str, list[Timeline]] = {}

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        """See `planning.targets.Timelines`."""
        gpu = kernel_class(capability(gpu_type))
        known = self._made.setdefault(repr(replace(job, micro_batch_size=0)), [])
        for timeline in known:
            right_size = timeline.affine or job.micro_batch_size in timeline.traced_batch_sizes
            if gpu in timeline.kernel_classes and right_size:
                return timeline
        known.append(Timeline.from_bytes(worker.trace(job, gpu)))
        return known[-1]


def predict(
    rows: Sequence[Row],
    *,
    peers: Answers | None,
    processes: int,
    progress: Callable[[int, int], None] = lambda done, tasks: None,
) -> list[Outcome]:
    """An outcome for each row. `peers` None asks none; `processes` 1 predicts in this one."""
    tasks: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        tasks.setdefault(repr(replace(row.job, micro_batch_size=0)), []).append(index)
    found: dict[int, Outcome] = {}
    work = [_work([rows[i] for i in indices], peers) for indices in tasks.values()]
    for done, (indices, (outcomes, asked)) in enumerate(
        zip(tasks.values(), _run(work, processes), strict=True), 1
    ):
        found.update(zip(indices, outcomes, strict=True))
        if peers is not None and asked:
            peers.keep(rows[indices[0]].job, asked)
        progress(done, len(tasks))
    return [found[i] for i in range(len(rows))]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """The rows of one job, at several batch sizes and on several GPUs."""

    rows: Sequence[Row]
    peers: BySize | None
    """What the peers say, where it is known; None asks them."""


def _work(rows: Sequence[Row], peers: Answers | None) -> _Work:
    return _Work(rows=rows, peers={} if peers is None else peers.of(rows[0].job, _sizes(rows)))


def _sizes(rows: Iterable[Row]) -> set[int]:
    return {row.job.micro_batch_size for row in rows}


def _run(work: Sequence[_Work], processes: int) -> Iterator[tuple[list[Outcome], BySize]]:
    if processes <= 1:
        worker.initialize()
        yield from map(_predict_job, work)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, worker.initialize) as pool:
        yield from pool.map(_predict_job, work)


def _predict_job(work: _Work) -> tuple[list[Outcome], BySize]:
    """Outcomes of a job's rows, and what peers were asked and said."""
    timelines, catalog = Traced(), GpuCatalog.load()
    outcomes = [_outcome(row, timelines, catalog) for row in work.rows]
    first = next((o.row for o in outcomes if o.prediction is not None), None)
    if first is None:
        return outcomes, {}
    timeline = timelines.get(first.job, catalog.get(first.gpu_type))
    built = fake.build(first.job)
    asked: BySize = {}
    if work.peers is None:
        asked = answers.ask(first.job, built, timeline, _sizes(work.rows))
    derived = family(built.module, timeline.traits)
    known = asked if work.peers is None else work.peers
    return [_completed(o, timeline, derived, known) for o in outcomes], asked


def _outcome(row: Row, timelines: Traced, catalog: GpuCatalog) -> Outcome:
    if row.error:
        return Outcome(row=row, prediction=None, reason=row.error)
    try:
        prediction = _predict(row, timelines, _gpu_type(row, catalog))
    except MemplanError as error:
        return Outcome(row=row, prediction=None, reason=str(error))
    return Outcome(row=row, prediction=prediction)


def _gpu_type(row: Row, catalog: GpuCatalog) -> GpuType:
    """The row's GPU type, with the context of the software it ran with."""
    gpu_type = catalog.get(row.gpu_type)
    if row.context_bytes is None:
        return gpu_type
    sources = {**gpu_type.sources, "context_bytes": row.table}
    return replace(gpu_type, context_bytes=row.context_bytes, sources=sources)


def _predict(row: Row, timelines: Traced, gpu_type: GpuType) -> Prediction:
    timeline = timelines.get(row.job, gpu_type)
    loader = _loader_bytes(row, timeline)
    capacity = gpu_type.usable_bytes - loader
    estimate = estimate_memory(timelines, row.job, gpu_type)
    probe = Probe(timelines, row.job, gpu_type)
    return Prediction(
        parameter_count=estimate.model_state.parameter_count,
        peak_allocated_bytes=estimate.peak_allocated_bytes,
        peak_reserved_bytes=estimate.peak_reserved_bytes,
        device_used_bytes=estimate.device_used_bytes,
        unsure_bytes=unsure_bytes(
            probe.allocated_bytes(row.job.micro_batch_size), estimate.peak_reserved_bytes
        ),
        lower_bound_bytes=estimate.lower_bound_bytes,
        upper_bound_bytes=estimate.upper_bound_bytes,
        confidence=estimate.confidence,
        kept_bytes=gpu_type.total_bytes - gpu_type.usable_bytes,
        loader_bytes=loader,
        capacity_bytes=capacity,
        bounds_family=uncertainty.family(timeline, gpu_type),
        fits=probe.fits(row.job.micro_batch_size, capacity),
    )


def _loader_bytes(row: Row, timeline: Timeline) -> int:
    """Batches of the job's largest input."""
    sizes = timeline.sizes(row.job.micro_batch_size)[timeline.category == Category.INPUT]
    return int(row.loader_batches * sizes.max(initial=0))


def _completed(outcome: Outcome, timeline: Timeline, derived: str, peers: BySize) -> Outcome:
    """With the family where the table does not say it, and the peers' answers."""
    if outcome.prediction is None:
        return outcome
    said_at = peers.get(outcome.row.job.micro_batch_size, {})
    prediction = replace(
        outcome.prediction,
        family=outcome.row.family or derived,
        traits=timeline.traits,
        peers={name: said + outcome.prediction.loader_bytes for name, said in said_at.items()},
    )
    return replace(outcome, prediction=prediction)
