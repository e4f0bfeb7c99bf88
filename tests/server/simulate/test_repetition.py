"""The third step, which is written down without being executed, is what its execution would be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from jobs import JOBS

from memplan.types import AllocatorSettings, Optimizer, OptimizerType, TrainingJob, ZeroGrad
from memplan_server import models
from memplan_server.allocator import replay
from memplan_server.simulate import trace as tracing
from memplan_server.simulate import worker
from memplan_server.simulate.repetition import with_third_step
from memplan_server.timeline import Timeline
from memplan_server.training import Loop

AMPERE = (8, 0)


def traced(job: TrainingJob, steps: int, monkeypatch: pytest.MonkeyPatch) -> Timeline:
    run = Loop.run
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "run", lambda loop: run(loop, steps))
        return tracing.trace_at(job, models.build(job), AMPERE, 13)


@pytest.mark.parametrize("zero_grad", [z for z in ZeroGrad if z is not ZeroGrad.UNSPECIFIED])
@pytest.mark.parametrize("name", ["resnet18", "deit_tiny_patch16_224", "bert", "lstm"])
def test_the_repeated_step_is_the_executed_one(
    name: str, zero_grad: ZeroGrad, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = JOBS[name]
    job = replace(
        job,
        loop=replace(job.loop, zero_grad=zero_grad),
        optimizer=Optimizer(type=OptimizerType.ADAM),
    )
    executed = traced(job, 3, monkeypatch)
    repeated = with_third_step(traced(job, 2, monkeypatch))
    assert np.array_equal(np.unique(repeated.step), [0, 1, 2])
    assert np.array_equal(repeated.phase, executed.phase)
    assert np.array_equal(repeated.step, executed.step)
    assert changes(repeated) == changes(executed)
    assert peaks(repeated) == peaks(executed)


def changes(timeline: Timeline) -> list[int]:
    """Bytes by which each event changes what is allocated."""
    sizes = timeline.sizes(13)
    return [int(sizes[e]) if e >= 0 else -int(sizes[~e]) for e in timeline.events.tolist()]


def peaks(timeline: Timeline) -> tuple[int, int]:
    found = replay(timeline.events.tolist(), timeline.sizes(13), AllocatorSettings())
    return found.peak_allocated_bytes, found.peak_reserved_bytes


def test_a_second_step_that_leaves_something_else_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timeline = traced(JOBS["resnet18"], 2, monkeypatch)
    made = timeline.events[(timeline.step == 1) & (timeline.events >= 0)]
    left = np.setdiff1d(made, ~timeline.events[timeline.events < 0])
    grown = timeline.intercept.copy()
    grown[left[0]] += 1
    assert with_third_step(replace(timeline, intercept=grown)).step.max() == 1


def test_reserved_bytes_may_grow_in_the_third_step() -> None:
    job = replace(JOBS["resnet18"], optimizer=Optimizer(type=OptimizerType.ADAM))
    timeline = Timeline.from_bytes(worker.trace(job, AMPERE))
    sizes, events = timeline.sizes(8), timeline.events
    two = replay(events[timeline.step < 2].tolist(), sizes).peak_reserved_bytes
    three = replay(events.tolist(), sizes).peak_reserved_bytes
    assert three > 1.05 * two
