"""Modules that people write are captured and traced, or it is said why not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from handwritten import FAILURES, MODULES, Buffered, linear
from torch import nn
from tracing import traced

import memplan
from memplan.capturing.pretending import CHECKPOINTS, FUNCTIONS
from memplan.capturing.wrapping import SUMMED
from memplan.fakes.known import CONDITIONS
from memplan_server.validation import violations_of

STATED = {
    "a custom autograd function": FUNCTIONS,
    "checkpointing": CHECKPOINTS,
    "reentrant checkpointing": CHECKPOINTS,
    "a condition on values": CONDITIONS[True],
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
        assert "handwritten.py:" in raised.value.location


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


def test_html_is_escaped() -> None:
    estimate = memplan.MemoryEstimate(assumptions=("<script>",))
    shown = memplan.PlanJobResponse(estimate=estimate)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


def test_a_graph_of_one_batch_size_is_not_searched() -> None:
    name = "a loop over samples"
    job = captured(MODULES[name], example(name))
    assert job.micro_batch_size == 8
    (violation,) = violations_of(memplan.PlanJobRequest(job=job))
    assert "EstimateMemory" in violation.description
    other = replace(job, micro_batch_size=9)
    (violation,) = violations_of(memplan.EstimateMemoryRequest(job=other))
    assert "micro_batch_size 8" in violation.description
