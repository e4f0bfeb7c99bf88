"""Modules that people write are captured and traced, or it is said why not."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from handwritten import FAILURES, MODULES, Buffered, linear
from torch import nn
from torch.nn.utils import prune
from tracing import traced

import memplan
from memplan.capturing.accepting import COMPILED, ONE_GPU
from memplan.capturing.modules import LARGER_BATCHES
from memplan.capturing.pretending import FUNCTIONS
from memplan.capturing.wrapping import SUMMED
from memplan.fakes.known import CONDITIONS
from memplan.types import DataParallel, DataParallelStrategy
from memplan_server.validation import violations_of

STATED = {
    "a custom autograd function": FUNCTIONS,
    "a condition on values": CONDITIONS[True],
    "another way for large batches": LARGER_BATCHES.format(63),
    "a loop over samples": "the model computes something else at other batch sizes: the graph "
    "holds for 8 only, and other batch sizes cannot be searched",
}
OWN_LOSS = ("its own loss", "autocast of its own", "a gradient penalty", "diffusion")
OWN_LOSS = (*OWN_LOSS, "a mask as an index")


def example(name: str) -> torch.Tensor:
    tokens = name in ("an LSTM", "a GRU", "an RNN")
    return torch.zeros(8, 5, dtype=torch.int64) if tokens else torch.empty(8, 8)


def captured(module: nn.Module, x: torch.Tensor) -> memplan.TrainingJob:
    trained = [p for p in module.parameters() if p.requires_grad]
    return memplan.capture_job(module, x, torch.optim.AdamW(trained))


def test_there_are_forty() -> None:
    assert len(MODULES) >= 40


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    module = MODULES[name]
    job = captured(module, example(name))
    timeline = traced(job)
    assert timeline.parameter_count == sum(p.numel() for p in module.parameters())
    trained = [p for p in module.parameters() if p.requires_grad]
    assert timeline.gradient_bytes == sum(p.nbytes for p in trained)
    stated = {STATED[name]} if name in STATED else set()
    assert job.model.graph is not None
    stated |= set() if name in OWN_LOSS else {SUMMED}
    assert set(job.model.graph.assumptions) == stated


def test_conditions_are_taken_to_be_what_is_said() -> None:
    module, x = MODULES["a condition on values"], example("a condition on values")
    optimizer = torch.optim.SGD(module.parameters())
    assumptions = memplan.Assumptions(conditions_are_false=True)
    true = memplan.capture_job(module, x, optimizer)
    false = memplan.capture_job(module, x, optimizer, assumptions=assumptions)
    assert true.model.graph is not None
    assert false.model.graph is not None
    assert "aten.neg.default" not in true.model.graph.operators
    assert "aten.neg.default" in false.model.graph.operators
    assert CONDITIONS[False] in false.model.graph.assumptions
    assert false.assumptions.conditions_are_false


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_explained(name: str) -> None:
    module, said = FAILURES[name]
    with pytest.raises(memplan.CaptureError) as raised:
        memplan.capture(module, torch.empty(8, 8))
    assert said in str(raised.value)
    if name != "no output":
        assert "handwritten.py" in raised.value.location


def test_the_module_stays_as_it_was() -> None:
    module = Buffered().eval()
    before = {name: id(value) for name, value in module.state_dict(keep_vars=True).items()}
    values = {name: value.clone() for name, value in module.state_dict().items()}
    random.seed(3)
    torch.manual_seed(3)
    states = random.getstate(), torch.get_rng_state()
    memplan.capture(nn.Sequential(module, nn.Dropout(0.5)), torch.empty(8, 8))
    after = module.state_dict(keep_vars=True)
    assert {name: id(value) for name, value in after.items()} == before
    assert all(torch.equal(after[name], value) for name, value in values.items())
    assert module.cache is None
    assert module.seen == []
    assert not module.training
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_no_memory_is_taken_for_a_model_without_any() -> None:
    with torch.device("meta"):
        module = nn.Sequential(*(nn.Linear(2**16, 2**16) for _ in range(50)))  # 800 GiB
    job = captured(module, torch.empty(4, 2**16, device="meta"))
    assert traced(job).parameter_bytes == 50 * 4 * (2**32 + 2**16)


def test_in_place_stays_in_place() -> None:
    graph = memplan.capture(nn.Sequential(linear(), nn.ReLU(True)), torch.empty(4, 8))
    assert "aten.relu_.default" in graph.operators


class TestOptimizers:
    def test_groups_have_their_own_options(self) -> None:
        model = nn.Sequential(linear(), linear())
        groups = [
            {"params": model[0].parameters(), "momentum": 0.9},
            {"params": model[1].parameters(), "momentum": 0.0, "weight_decay": 0.1},
        ]
        job = memplan.capture_job(model, torch.empty(4, 8), torch.optim.SGD(groups, lr=0.1))
        assert [g.momentum for g in job.optimizer.groups] == [0.9, 0.0]
        assert traced(job).optimizer_state_bytes == sum(p.nbytes for p in model[0].parameters())

    def test_what_the_optimizer_does_not_have_is_not_stepped(self) -> None:
        model = nn.Sequential(linear(), linear())
        optimizer = torch.optim.Adam(model[1].parameters(), amsgrad=True, fused=True)
        timeline = traced(memplan.capture_job(model, torch.empty(4, 8), optimizer))
        own = [3 * p.nbytes + 4 for p in model[1].parameters()]  # fused: the step count too
        assert timeline.optimizer_state_bytes == sum(own)
        assert timeline.gradient_bytes == sum(p.nbytes for p in model.parameters())

    def test_unknown_classes_need_a_state_count(self) -> None:
        class Lion(torch.optim.SGD):
            pass

        model = linear()
        with pytest.raises(memplan.CaptureError, match="state_count"):
            memplan.describe_optimizer(Lion(model.parameters()))
        job = memplan.capture_job(model, torch.empty(4, 8), Lion(model.parameters()), state_count=1)
        assert traced(job).optimizer_state_bytes == sum(p.nbytes for p in model.parameters())

    def test_parameters_of_another_module_are_refused(self) -> None:
        optimizer = torch.optim.SGD(linear().parameters())
        with pytest.raises(memplan.CaptureError, match="does not have"):
            memplan.capture_job(linear(), torch.empty(4, 8), optimizer)


def small() -> nn.Module:
    return nn.Sequential(linear(), nn.ReLU(), linear(2))


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is giving this interface up
        made: nn.Module = torch.ao.quantization.quantize_dynamic(small(), {nn.Linear})
    return made


def compiled() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports uses what PyTorch is giving up
        made: nn.Module = torch.compile(small())
    return made


def hooked() -> nn.Module:
    module = small()
    module.register_forward_hook(lambda m, inputs, output: output * 2)
    module.register_full_backward_hook(lambda m, given, got: None)
    return module


def pruned() -> nn.Module:
    return nn.Sequential(prune.random_unstructured(linear(), "weight", 0.5))


class TestWhatWrapsModules:
    @pytest.mark.parametrize(
        ("make", "stated"),
        [
            (compiled, {COMPILED}),
            (lambda: nn.Sequential(compiled()), {COMPILED}),
            (hooked, set()),
            (pruned, set()),
            (lambda: nn.Sequential(nn.utils.parametrizations.orthogonal(linear())), set()),
        ],
    )
    def test_captured(self, make: Callable[[], nn.Module], stated: set[str]) -> None:
        module = make()
        job = captured(module, torch.empty(8, 8))
        assert job.model.graph is not None
        assert set(job.model.graph.assumptions) == {SUMMED, *stated}
        assert traced(job).parameter_count == sum(p.numel() for p in module.parameters())

    def test_distributed_data_parallel(self) -> None:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            ddp = nn.parallel.DistributedDataParallel(
                small(), bucket_cap_mb=5, gradient_as_bucket_view=True
            )
        finally:
            dist.destroy_process_group()
        job = captured(ddp, torch.empty(8, 8))
        assert job.data_parallel == DataParallel(
            strategy=DataParallelStrategy.DDP, bucket_cap_mb=5, gradient_as_bucket_view=True
        )
        assert job.model.graph == captured(ddp.module, torch.empty(8, 8)).model.graph

    def test_data_parallel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        where = sys.modules["torch.nn.parallel.data_parallel"]
        # Not the simulated GPU, which takes no tensors from elsewhere.
        monkeypatch.setattr(where, "_get_available_device_type", lambda: None)
        job = captured(nn.DataParallel(small()), torch.empty(8, 8))
        assert job.model.graph is not None
        assert ONE_GPU in job.model.graph.assumptions
        assert job.model.graph.modules[0].type == "Sequential"

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: nn.Sequential(nn.LazyLinear(8)), r"module 0 \(LazyLinear\) is lazy"),
            (quantised, "quantised modules are not trained"),
            (lambda: nn.Linear, "Linear is no torch.nn.Module"),
            (lambda: small, "function is no torch.nn.Module"),
        ],
    )
    def test_refused(self, make: Callable[[], Any], said: str) -> None:
        module = make()
        with pytest.raises(memplan.CaptureError, match=said):
            memplan.capture_job(module, torch.empty(8, 8), memplan.Optimizer())

    def test_what_torchscript_compiled_is_refused(self) -> None:
        script = torch.jit.ScriptModule  # of which every compiled module is one
        with pytest.raises(memplan.CaptureError, match="TorchScript"):
            memplan.capture(nn.Sequential(script()), torch.empty(8, 8))


@pytest.mark.parametrize(
    ("inputs", "loss", "said"),
    [
        (torch.empty(0, 8), None, "is empty"),
        (3, None, "give tensors"),
        (torch.empty(4, 7), None, r"^module 0 \(Linear\): "),
        (torch.zeros(4, 8, dtype=torch.int64), None, "module 0: .* int64 and float32"),
        (torch.empty(4, 8), "mse", "The loss must be a function"),
    ],
)
def test_wrong_examples(inputs: Any, loss: Any, said: str) -> None:
    with pytest.raises(memplan.CaptureError, match=said):
        memplan.capture(small(), inputs, loss=loss)


class TestTypes:
    def test_unlike_types_are_alike_under_autocast_only(self) -> None:
        module, x = linear(), torch.empty(4, 8, dtype=torch.bfloat16)
        optimizer = torch.optim.SGD(module.parameters())
        with pytest.raises(memplan.CaptureError, match="bfloat16 and float32"):
            memplan.capture_job(module, x, optimizer)
        memplan.capture_job(module, x, optimizer, precision=memplan.Precision.AMP_BF16)

    def test_a_described_input_has_the_type_of_the_module(self) -> None:
        module = linear().bfloat16()
        x = memplan.InputTensor(shape=(8,))
        job = memplan.capture_job(module, x, torch.optim.SGD(module.parameters()))
        assert job.model.graph is not None
        assert job.model.graph.inputs[0].dtype is memplan.DataType.BFLOAT16
        assert job.micro_batch_size == 0  # no example, no batch size

    def test_an_optimizer_can_be_described(self) -> None:
        described = memplan.Optimizer(type=memplan.OptimizerType.ADAM)
        assert memplan.capture_job(linear(), torch.empty(4, 8), described).optimizer == described


def test_html_is_escaped() -> None:
    estimate = memplan.MemoryEstimate(assumptions=("<script>",))
    shown = memplan.PlanJobResponse(estimate=estimate)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


def test_a_graph_of_one_batch_size_is_not_searched() -> None:
    name = "a loop over samples"
    job = captured(MODULES[name], example(name))
    assert job.micro_batch_size == 8
    searches = (
        memplan.PlanJobRequest(job=job),
        memplan.RecommendBatchSizeRequest(job=job),
        memplan.PlanAccumulationRequest(
            job=job, gpu=memplan.GpuTarget(gpu_type="nvidia-t4"), global_batch_size=64
        ),
        memplan.ProfileMemoryRequest(job=job, find_batch_size=True),
    )
    for request in searches:
        (violation,) = violations_of(request)
        assert "EstimateMemory" in violation.description
    other = replace(job, micro_batch_size=9)
    (violation,) = violations_of(memplan.EstimateMemoryRequest(job=other))
    assert "micro_batch_size 8" in violation.description
