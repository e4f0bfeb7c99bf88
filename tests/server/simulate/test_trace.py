"""The timeline of two traces is the timeline of every batch size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from jobs import JOBS, catalog_job, mnist

from memplan.types import (
    GradientClipping,
    MemoryFormat,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    Precision,
    TrainingJob,
    TrainingLoop,
    ZeroGrad,
)
from memplan_server import models
from memplan_server.gpus.libraries import KERNEL_CLASSES
from memplan_server.simulate import trace as tracing
from memplan_server.simulate import worker
from memplan_server.timeline import Category, Phase, Timeline

AMPERE = (8, 0)
PRECISIONS = (Precision.FP32, Precision.AMP_FP16, Precision.AMP_BF16)


def traced(job: TrainingJob) -> Timeline:
    return Timeline.from_bytes(worker.trace(job, AMPERE))


QUICK = "resnet18 convnext_tiny deit_tiny_patch16_224 bert gpt2 llama t5 lstm gru mnist".split()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in JOBS]
)
def test_predicted_equals_traced_event_for_event(name: str, precision: Precision) -> None:
    job = replace(JOBS[name], precision=precision)
    built = models.build(job)
    predicted = tracing.trace_affine(job, built, AMPERE)
    assert predicted is not None
    direct = tracing.trace_at(job, built, AMPERE, 13)
    assert np.array_equal(predicted.events, direct.events)
    assert np.array_equal(predicted.sizes(13), direct.sizes(13))
    assert np.array_equal(predicted.category, direct.category)


OPTIMIZERS = [
    (Optimizer(type=OptimizerType.SGD), 0),
    (Optimizer(type=OptimizerType.SGD, momentum=0.9), 1),
    (Optimizer(type=OptimizerType.ADAM), 2),
    (Optimizer(type=OptimizerType.ADAM, amsgrad=True), 3),
    (Optimizer(type=OptimizerType.ADAMW), 2),
    (Optimizer(type=OptimizerType.ADAGRAD), 1),
    (Optimizer(type=OptimizerType.RMSPROP), 1),
    (Optimizer(type=OptimizerType.RMSPROP, momentum=0.9, centered=True), 3),
    (Optimizer(type=OptimizerType.CUSTOM, state_count=1), 1),
    (Optimizer(type=OptimizerType.CUSTOM, state_count=4), 4),
]


@pytest.mark.parametrize(("optimizer", "states"), OPTIMIZERS)
@pytest.mark.parametrize(
    "implementation", [OptimizerImplementation.FOREACH, OptimizerImplementation.SINGLE]
)
def test_states_are_like_the_parameters(
    optimizer: Optimizer, states: int, implementation: OptimizerImplementation
) -> None:
    if (
        optimizer.type is OptimizerType.CUSTOM
        and implementation is not OptimizerImplementation.SINGLE
    ):
        pytest.skip("custom optimizers loop over parameters")
    timeline = traced(replace(mnist(), optimizer=replace(optimizer, implementation=implementation)))
    assert timeline.optimizer_state_bytes == states * timeline.parameter_bytes
    kept = timeline.category == Category.OPTIMIZER_STATE
    assert int(timeline.sizes(1)[kept].sum()) == timeline.optimizer_state_bytes


@pytest.mark.parametrize("kind", ["SGD", "ADAM", "ADAMW", "ADAGRAD"])
def test_fused_optimizers_make_no_temporaries(kind: str) -> None:
    optimizer = Optimizer(type=OptimizerType[kind], implementation=OptimizerImplementation.FUSED)
    timeline = traced(replace(mnist(), optimizer=optimizer))
    second = (timeline.step == 1) & (timeline.phase == Phase.OPTIMIZER_STEP)
    made = timeline.events[second & (timeline.events >= 0)]
    assert int(timeline.sizes(1)[made].sum()) < 4096


def test_foreach_copies_all_parameters_and_single_one_at_a_time() -> None:
    def temporaries(implementation: OptimizerImplementation) -> int:
        optimizer = Optimizer(type=OptimizerType.ADAM, implementation=implementation)
        timeline = traced(replace(mnist(), optimizer=optimizer))
        step = timeline.phase == Phase.OPTIMIZER_STEP
        held = peak = 0
        sizes = timeline.sizes(1).tolist()
        made: set[int] = set()
        for event in timeline.events[step & (timeline.step == 1)].tolist():
            if event >= 0:
                made.add(event)
                held += sizes[event]
            elif ~event in made:
                held -= sizes[~event]
            peak = max(peak, held)
        return peak

    parameters, largest = 4 * (784 * 128 + 128 + 128 * 10 + 10), 4 * 784 * 128
    assert parameters <= temporaries(OptimizerImplementation.FOREACH) < 1.01 * parameters
    assert temporaries(OptimizerImplementation.SINGLE) == 2 * largest  # the root, and its quotient


def alive_during_forward(loop: TrainingLoop) -> int:
    """Gradient bytes alive when the second step's forward pass ends."""
    timeline = traced(replace(mnist(), loop=loop))
    end = int(np.flatnonzero((timeline.phase == Phase.FORWARD) & (timeline.step == 1))[-1])
    alive = {e for e in timeline.events[: end + 1].tolist() if e >= 0}
    alive -= {~e for e in timeline.events[: end + 1].tolist() if e < 0}
    sizes = timeline.sizes(8)
    return sum(int(sizes[s]) for s in alive if timeline.category[s] == Category.GRADIENT)


@pytest.mark.parametrize(
    ("loop", "alive"),
    [
        (TrainingLoop(zero_grad=ZeroGrad.BEFORE_FORWARD, accumulation_steps=1), False),
        (TrainingLoop(zero_grad=ZeroGrad.AFTER_STEP, accumulation_steps=1), False),
        (TrainingLoop(zero_grad=ZeroGrad.NEVER, accumulation_steps=1), True),
        (TrainingLoop(zero_grad=ZeroGrad.BEFORE_FORWARD, accumulation_steps=4), True),
        (
            TrainingLoop(
                zero_grad=ZeroGrad.BEFORE_FORWARD,
                zero_grad_set_to_none=False,
                accumulation_steps=1,
            ),
            True,
        ),
    ],
)
def test_gradients_live_as_the_loop_says(loop: TrainingLoop, alive: bool) -> None:
    held = alive_during_forward(loop)
    assert held == (4 * (784 * 128 + 128 + 128 * 10 + 10) if alive else 0)


def test_clipping_by_norm_needs_memory() -> None:
    def events(clipping: GradientClipping) -> int:
        loop = replace(mnist().loop, gradient_clipping=clipping)
        return len(traced(replace(mnist(), loop=loop)).events)

    assert events(GradientClipping.NORM) > events(GradientClipping.NONE)


def test_clipping_does_not_depend_on_the_optimizer() -> None:
    def clipped(implementation: OptimizerImplementation) -> int:
        optimizer = Optimizer(type=OptimizerType.SGD, implementation=implementation)
        loop = replace(mnist().loop, gradient_clipping=GradientClipping.NORM)
        return len(traced(replace(mnist(), loop=loop, optimizer=optimizer)).events)

    assert clipped(OptimizerImplementation.SINGLE) == clipped(OptimizerImplementation.FOREACH)


def test_silu_backward_stays_one_allocation() -> None:
    torch = pytest.importorskip("torch")
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in ("silu_backward", "mish_backward", "native_channel_shuffle"):
        assert has(f"aten::{name}", "PrivateUse1")


def test_half_weights_halve_the_parameters() -> None:
    full, half = (
        traced(catalog_job("torchvision/resnet18", precision=p))
        for p in (Precision.FP32, Precision.BF16)
    )
    assert half.parameter_bytes * 2 == full.parameter_bytes


def test_channels_last_is_simulated() -> None:
    timeline = traced(catalog_job("torchvision/resnet18", memory_format=MemoryFormat.CHANNELS_LAST))
    assert timeline.affine


def test_autocast_keeps_a_copy_of_each_weight_once() -> None:
    timeline = traced(catalog_job("torchvision/vgg11_bn", precision=Precision.AMP_FP16))
    copies = (timeline.category == Category.AUTOCAST_COPY) & (timeline.slope == 0)
    total = int(timeline.sizes(1)[copies].sum())
    assert 0.9 * timeline.parameter_bytes < total <= timeline.parameter_bytes  # half, two steps


def test_the_kernels_of_convolutions_do_not_depend_on_the_gpu() -> None:
    assert traced(catalog_job("torchvision/resnet18")).kernel_classes == KERNEL_CLASSES


def test_half_precision_attention_depends_on_the_gpu() -> None:
    job = catalog_job("torchvision/vit_b_16", precision=Precision.AMP_FP16)
    assert (8, 0) in traced(job).kernel_classes
    assert (7, 0) not in traced(job).kernel_classes


def test_two_executions_leave_nothing_behind() -> None:
    job = JOBS["resnet18"]
    assert worker.trace(job, AMPERE) == worker.trace(job, AMPERE)
