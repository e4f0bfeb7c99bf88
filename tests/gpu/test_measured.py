"""Jobs really run on a CUDA GPU, against what is simulated for it."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from memplan.types import (
    AllocatorSettings,
    CatalogModel,
    DataParallel,
    DataParallelStrategy,
    DataType,
    InputTensor,
    Model,
    Optimizer,
    OptimizerType,
    Precision,
    TrainingJob,
)
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure.child import WITHOUT_GPU, in_child
from memplan_server.measure.compare import Comparison, compare, gpu_type_of
from memplan_server.measure.history import replay_history
from memplan_server.measure.request import Request
from memplan_server.measure.run import Outcome
from memplan_server.measure.simulated import Simulated
from memplan_server.measure.text import report

TINY = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_GPT = {"n_embd": 256, "n_layer": 2, "n_head": 4}
MIB = 1 << 20
CATALOG = GpuCatalog.load()


def job(name: str, config: dict[str, int], *shape: int, **fields: object) -> TrainingJob:
    indices = len(shape) == 1
    dtype = DataType.INT64 if indices else DataType.UNSPECIFIED
    made = TrainingJob(
        model=Model(catalog=CatalogModel(name=name, config=config)),
        inputs=(InputTensor(shape=shape, dtype=dtype),),
        optimizer=Optimizer(type=OptimizerType.ADAM),
        micro_batch_size=16,
    )
    return normalize(replace(made, **fields))  # type: ignore[arg-type]


BERT = job("transformers/bert", {**TINY, "intermediate_size": 512}, 128)
RANK = DataParallel(strategy=DataParallelStrategy.DDP, bucket_cap_mb=1)
JOBS = {
    "bert": BERT,
    "bert, half": replace(BERT, precision=Precision.AMP_FP16),
    "gpt2": job("transformers/gpt2", SMALL_GPT, 256),
    "resnet18": job("torchvision/resnet18", {}, 3, 128, 128),
    "a rank": normalize(replace(BERT, data_parallel=RANK)),
    "vit": job("timm/vit_tiny_patch16_224", {}, 3, 224, 224, precision=Precision.AMP_BF16),
}
GROWING = replace(BERT, allocator=AllocatorSettings(expandable_segments=True))


GROWING_NAME = "growing"


@functools.cache
def recorded(name: str) -> Outcome:
    """A run with its history, once for all tests."""
    return measured(GROWING if name == GROWING_NAME else JOBS[name], history=True)


def measured(described: TrainingJob, **fields: object) -> Outcome:
    request = Request(job=described, **fields)  # type: ignore[arg-type]
    outcome: Outcome = in_child("memplan_server.measure.run:run", request)
    return outcome


def simulated(described: TrainingJob, outcome: Outcome) -> Simulated:
    gpu_type = gpu_type_of(outcome.measurement.gpu, CATALOG)
    made: Simulated = in_child(
        "memplan_server.measure.simulated:simulate", described, gpu_type, environment=WITHOUT_GPU
    )
    return made


@pytest.mark.parametrize("name", JOBS)
def test_peaks_are_as_estimated(name: str) -> None:
    outcome = recorded(name)
    found, expected = outcome.measurement, simulated(JOBS[name], outcome)
    assert found.out_of_memory is None
    assert found.optimizer_steps == found.steps
    assert expected.peak_allocated_bytes == pytest.approx(found.peak_allocated_bytes, rel=0.01)
    assert found.peak_reserved_bytes is not None
    assert abs(expected.peak_reserved_bytes - found.peak_reserved_bytes) <= max(
        0.03 * found.peak_reserved_bytes, 20 * MIB
    )


def test_what_the_driver_says() -> None:
    found = measured(BERT).measurement
    assert found.gpu.compute_capability
    assert found.gpu.multiprocessor_count > 0
    assert found.step_seconds is not None
    assert 0 < found.step_seconds.p10 <= found.step_seconds.median <= found.step_seconds.p90
    if found.device_used_bytes is None:
        pytest.skip("NVML is not there")
    assert found.device_used_bytes > (found.peak_reserved_bytes or 0)
    assert found.context_before_bytes is not None
    assert found.context_after_bytes is not None
    assert 30 * MIB < found.context_before_bytes <= found.context_after_bytes < 3000 * MIB


def test_running_out_of_memory_is_a_result() -> None:
    """1,000 GiB in the first forward pass, of a batch that is soon made."""
    found = measured(replace(BERT, micro_batch_size=1 << 15)).measurement
    assert found.out_of_memory is not None
    assert found.out_of_memory.step == 0
    assert (found.out_of_memory.requested_bytes or 0) > 1 << 30


@pytest.mark.parametrize("name", [*JOBS, GROWING_NAME])
def test_the_recorded_history_replayed_reserves_what_was_reserved(name: str) -> None:
    outcome = recorded(name)
    history = outcome.seen.history
    assert history is not None
    assert history.peak_reserved_bytes == outcome.measurement.peak_reserved_bytes
    replayed = replay_history(history, GROWING.allocator if name == GROWING_NAME else None)
    assert replayed.same, replayed


@pytest.fixture(scope="module")
def bert() -> Comparison:
    return compare(BERT, CATALOG)


def test_events_of_bert(bert: Comparison) -> None:
    apart = (*bert.events.only_measured, *bert.events.only_simulated)
    at_peak = sum(group.bytes_at_peak for group in apart)
    assert at_peak <= 0.01 * bert.measured.peak_allocated_bytes, report(bert)
    assert bert.events.matched_allocations >= 0.95 * bert.events.measured_allocations, report(bert)


def test_operators_are_known(bert: Comparison) -> None:
    unknown = sum(g.count for g in bert.events.only_measured if g.operator in ("unknown", "other"))
    assert unknown <= 0.05 * bert.events.measured_allocations, report(bert)
