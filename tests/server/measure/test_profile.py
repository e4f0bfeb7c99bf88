"""Profiles on the CPU: what the process that measures gives, against what is estimated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from memplan.types import (
    Activation,
    AllocatorSettings,
    CatalogModel,
    DataType,
    Flatten,
    GpuType,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Model,
    Optimizer,
    OptimizerType,
    Phase,
    Precision,
    ProfileStage,
    TrainingJob,
)
from memplan_server import planning
from memplan_server.allocator import replay
from memplan_server.errors import LimitExceeded
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure.child import Child, in_child
from memplan_server.measure.child_process import Kind
from memplan_server.measure.curve import MOST_POINTS, curve_of, replay_events
from memplan_server.measure.events import Events, Section
from memplan_server.measure.history import History
from memplan_server.measure.profile import largest_affordable
from memplan_server.measure.profiled import Profiled
from memplan_server.measure.request import Progress, Request
from memplan_server.measure.run import Outcome, run
from memplan_server.simulate import worker
from memplan_server.timeline import Phase as Part
from memplan_server.timeline import Timeline

PROFILE = "memplan_server.measure.profile:profile"
GPU = GpuCatalog.load().get("nvidia-a100-80gb")
MIB = 1 << 20
MLP = normalize(
    TrainingJob(
        model=Model(
            layer_stack=LayerStack(
                layers=(
                    Layer(flatten=Flatten()),
                    Layer(linear=Linear(out_features=512)),
                    Layer(activation=Activation()),
                    Layer(linear=Linear(out_features=10)),
                )
            )
        ),
        inputs=(InputTensor(shape=(1, 28, 28)),),
        optimizer=Optimizer(type=OptimizerType.ADAM),
        micro_batch_size=64,
    )
)


def request(job: TrainingJob, **fields: Any) -> Request:
    asked = {"warmup_steps": 1, "steps": 2, "time_limit_s": 240.0} | fields
    return Request(job=job, device_type="cpu", history=True, **asked)


def profiled(asked: Request) -> tuple[list[Progress], Profiled]:
    told: list[Progress] = []
    with Child(PROFILE, asked, reporting=True).ended() as child:
        while True:
            kind, value = child.next(280)
            if kind is Kind.RETURNED:
                return told, value
            told.append(value)


@dataclass(frozen=True)
class Traced:
    """`Timelines` that simulates here."""

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        return Timeline.from_bytes(worker.trace(job, (8, 0)))


def test_a_job_is_built_warmed_up_and_measured() -> None:
    told, found = profiled(request(MLP))
    assert told[0].stage is ProfileStage.BUILDING
    last = [t for t in told if t.micro_batch_size == 64 and t.step_count == 3]
    assert [t.step for t in last] == [0, 1, 2, 3]
    assert [t.stage for t in last] == [ProfileStage.WARMING_UP] + [ProfileStage.MEASURING] * 3
    assert last[-1].peak_allocated_bytes > last[0].peak_allocated_bytes > 0
    assert (found.micro_batch_size, found.warmup_step_count, found.step_count) == (64, 1, 2)
    measured = found.measurement
    assert measured.peak_reserved_bytes is not None
    assert measured.peak_reserved_bytes >= measured.peak_allocated_bytes > 0
    assert measured.step_seconds is None
    assert measured.device_used_bytes is None
    assert {p.phase for p in found.phases} == set(Phase) - {Phase.UNSPECIFIED}
    assert max(p.peak_allocated_bytes for p in found.phases) == measured.peak_allocated_bytes
    assert 0 < len(found.curve) <= MOST_POINTS
    assert max(p.allocated_bytes for p in found.curve) == measured.peak_allocated_bytes
    assert any("Measured on the CPU" in note for note in found.notes)


def test_a_limit_that_is_too_small_is_a_result() -> None:
    context = 100 * MIB
    _, found = profiled(request(MLP, memory_limit_bytes=101 * MIB, context_bytes=context))
    failed = found.measurement.out_of_memory
    assert failed is not None
    assert failed.requested_bytes
    assert found.memory_limit_bytes == 101 * MIB
    assert found.measurement.peak_reserved_bytes is not None
    assert found.measurement.peak_reserved_bytes <= MIB


def test_without_time_a_smaller_batch_and_fewer_steps_are_run() -> None:
    many = replace(MLP, micro_batch_size=1 << 20)
    _, found = profiled(request(many, time_limit_s=8.0, steps=50, host_memory_bytes=1 << 30))
    assert 2 <= found.micro_batch_size < 1 << 20
    assert any("was run instead of 1,048,576" in note for note in found.notes)


def test_a_host_that_is_too_small_is_told() -> None:
    wide = replace(MLP, inputs=(InputTensor(shape=(1 << 22,)),), micro_batch_size=1)
    with (
        Child(PROFILE, request(wide), reporting=True, memory_limit_bytes=2 << 30).ended() as child,
        pytest.raises(LimitExceeded, match="too little memory"),
    ):
        child.result(200)


def test_the_affordable_batch_is_bound_by_time_and_by_memory() -> None:
    first: Outcome = run(
        request(replace(MLP, micro_batch_size=2), warmup_steps=0, steps=1, time_limit_s=0.0)
    )
    times = first.measurement.step_seconds
    assert times is not None
    asked = request(replace(MLP, micro_batch_size=4096), host_memory_bytes=1 << 40)
    step = times.median * 3  # warm-up and measured steps at a batch size of 2
    assert largest_affordable(asked, first, 1e6) == 4096
    assert largest_affordable(asked, first, 0.0) == 2
    assert largest_affordable(asked, first, -1000 * step) == 2  # the first step took too long
    assert largest_affordable(asked, first, step * 33 / 2) == 32
    small = replace(asked, host_memory_bytes=first.measurement.peak_allocated_bytes)
    assert largest_affordable(small, first, 1e6) == 2


EVENTS = Events(
    events=[0, 1, ~0, 2, ~2, ~1],
    sizes=[1000, 4 * MIB, 512],
    sections=[Section(0, Part.SETUP, 0), Section(1, Part.FORWARD, 0), Section(3, Part.BACKWARD, 0)],
)


def test_events_replayed_have_a_curve_and_peaks_by_phase() -> None:
    found = replay_events(EVENTS, AllocatorSettings())
    assert [p.allocated_bytes for p in found.curve] == [
        1024,
        1024 + 4 * MIB,
        4 * MIB,
        4 * MIB + 512,
        4 * MIB,
        0,
    ]
    assert [p.phase for p in found.curve][::2] == [
        Phase.UNSPECIFIED,
        Phase.FORWARD,
        Phase.BACKWARD,
    ]
    assert [p.event for p in found.curve] == [1, 2, 3, 4, 5, 6]
    peaks = {p.phase: p.peak_allocated_bytes for p in found.phases}
    assert peaks == {Phase.FORWARD: 1024 + 4 * MIB, Phase.BACKWARD: 4 * MIB + 512}
    assert found.failed is None


def test_a_replay_stops_at_what_does_not_fit() -> None:
    found = replay_events(EVENTS, AllocatorSettings(), 3 * MIB)
    assert found.failed == Section(1, Part.FORWARD, 0)
    assert found.requested_bytes == 4 * MIB
    assert found.peak_reserved_bytes == 2 * MIB
    assert len(found.curve) == 1


def test_a_long_curve_keeps_its_peak_and_its_end() -> None:
    count = 5000
    events = Events(
        events=[*range(count), *(~s for s in range(count))],
        sizes=[512] * count,
        sections=[Section(0, Part.FORWARD, 0)],
    )
    found = replay_events(events, AllocatorSettings())
    assert len(found.curve) <= MOST_POINTS
    assert max(p.allocated_bytes for p in found.curve) == found.peak_allocated_bytes
    assert found.curve[-1].event == 2 * count
    assert [p.event for p in found.curve] == sorted(p.event for p in found.curve)


def test_the_curve_of_a_history_has_its_segments() -> None:
    history = History(
        events=EVENTS.events,
        sizes=EVENTS.sizes,
        usable=EVENTS.events,
        reserved=[2 * MIB, 22 * MIB, 22 * MIB],
        segments=[(0, 2 * MIB), (1, 20 * MIB)],
    )
    curve = curve_of(history, EVENTS)
    assert [p.reserved_bytes // MIB for p in curve] == [2, 22, 22, 22, 22, 22]
    assert [p.allocated_bytes for p in curve][:3] == [1024, 1024 + 4 * MIB, 4 * MIB]


def images(name: str, size: int = 96) -> TrainingJob:
    return _job(name, {}, InputTensor(shape=(3, size, size)))


def text(name: str, **config: Any) -> TrainingJob:
    # Attention and dropout have kernels of their own on each device: without them both do the same.
    config |= {"attn_implementation": "eager"}
    return _job(name, config, InputTensor(shape=(64,), dtype=DataType.INT64))


def _job(name: str, config: dict[str, Any], inputs: InputTensor) -> TrainingJob:
    return normalize(
        TrainingJob(
            model=Model(catalog=CatalogModel(name=name, config=config)),
            inputs=(inputs,),
            optimizer=Optimizer(type=OptimizerType.ADAM),
            micro_batch_size=2,
        )
    )


WITHOUT_DROPOUT = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
TEN = {
    "resnet50": images("torchvision/resnet50"),
    "densenet121": images("torchvision/densenet121"),
    "mobilenet_v3_large": images("torchvision/mobilenet_v3_large"),
    "efficientnet_b0": images("torchvision/efficientnet_b0"),
    "regnet_y_1_6gf": images("torchvision/regnet_y_1_6gf"),
    "convnext_tiny": images("torchvision/convnext_tiny"),
    "resnext": images("timm/resnext26ts"),
    "bert": text("transformers/bert", num_hidden_layers=4, **WITHOUT_DROPOUT),
    "gpt2": text("transformers/gpt2", n_layer=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "llama": text(
        "transformers/llama",
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=8000,
    ),
}

CHECKPOINTED = {
    f"checkpointed {name}": replace(job, activation_checkpointing=True, micro_batch_size=16)
    for name, job in TEN.items()
    if name in ("bert", "llama", "resnext")
}
CHECKPOINTED["checkpointed llama in bfloat16"] = replace(
    CHECKPOINTED["checkpointed llama"], precision=Precision.AMP_BF16
)
JOBS = TEN | CHECKPOINTED


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_what_the_cpu_took_is_what_is_estimated(name: str) -> None:
    job = JOBS[name]
    found: Profiled = in_child("profiles:profile_quietly", request(job, warmup_steps=1, steps=1))
    assert found.micro_batch_size == job.micro_batch_size
    estimate = planning.estimate_memory(Traced(), job, GPU)
    measured = found.measurement.peak_allocated_bytes
    # The one exception, of every model: workspaces of cuBLAS and cuDNN, of which a CPU has none.
    # They make 1 to 15 % of these small jobs.
    assert without_workspaces(job) == pytest.approx(measured, rel=0.01)
    assert measured <= estimate.peak_allocated_bytes


@pytest.mark.slow
@pytest.mark.parametrize("experts", ["eager", "grouped_mm"])
@pytest.mark.parametrize("name", ["mixtral", "olmoe"])
def test_experts_took_what_balanced_routing_says(name: str, experts: str) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}
    routed = {"num_experts_per_tok": 2, "experts_implementation": experts}
    job = replace(text(f"transformers/{name}", **sizes, **heads, **routed), micro_batch_size=16)
    found: Profiled = in_child("profiles:profile_quietly", request(job, warmup_steps=1, steps=1))
    measured = found.measurement.peak_allocated_bytes
    assert without_workspaces(job) == pytest.approx(measured, rel=0.02)


def without_workspaces(job: TrainingJob) -> int:
    """The estimate's peak allocated bytes on a GPU whose libraries need no workspaces."""
    timeline = Traced().get(job, GPU)
    sizes = timeline.sizes(job.micro_batch_size)
    sizes[list(timeline.workspaces)] = 0
    return replay(timeline.events.tolist(), sizes).peak_allocated_bytes
