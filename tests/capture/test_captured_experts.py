"""Captured mixtures of experts take what the server's own take, with the routing stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from tracing import peaks, traced

import memplan
from memplan.types import Assumptions, CatalogModel, InputTensor, Model, Routing, TrainingJob
from memplan_server import models
from memplan_server.errors import InvalidJob
from memplan_server.jobs import normalize

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 512,
}
MIXTRAL = SMALL | {"num_local_experts": 8}
EAGER = {"experts_implementation": "eager"}
DEEPSEEK = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
}
SWITCH = {
    "d_model": 64,
    "d_ff": 128,
    "d_kv": 16,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "num_experts": 8,
    "vocab_size": 512,
}
QWEN = SMALL | {"moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2}
QUICK = [("mixtral", MIXTRAL), ("mixtral", MIXTRAL | EAGER)]
LONG = [
    ("switch_transformers", SWITCH),
    ("qwen3_moe", QWEN | EAGER),
    ("deepseek_v3", SMALL | DEEPSEEK | EAGER),
    ("gpt_oss", SMALL | {"num_local_experts": 8, "head_dim": 16} | EAGER),
]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG)]


def captured(job: TrainingJob) -> TrainingJob:
    """The same job with its model captured from the library's own module."""
    built = models.build(job)
    given = {
        s.name: InputTensor(shape=s.shape, dtype=s.dtype) for s in (*built.inputs, *built.labels)
    }
    graph = memplan.capture(built.module, (), kwargs=given, assumptions=job.assumptions)
    return TrainingJob(model=Model(graph=graph), micro_batch_size=16, assumptions=job.assumptions)


@pytest.mark.parametrize("routing", [Routing.BALANCED, Routing.WORST_CASE])
@pytest.mark.parametrize(("name", "config"), CASES)
def test_allocated_bytes_are_equal(name: str, config: dict[str, Any], routing: Routing) -> None:
    model = Model(catalog=CatalogModel(name=f"transformers/{name}", config=config))
    tokens = InputTensor(name="input_ids", shape=(64,))
    job = normalize(
        TrainingJob(
            model=model,
            inputs=(tokens,),
            micro_batch_size=16,
            assumptions=Assumptions(routing=routing),
        )
    )
    own, other = traced(job), traced(captured(job))
    assert own.affine
    assert other.affine
    assert peaks(other, 16) == peaks(own, 16)
    by_router = [said for said in other.assumptions if "routing" in said]
    assert by_router == [said for said in own.assumptions if "routing" in said]


class _Experts(nn.Module):
    """A mixture of experts as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, picked = self.router(x).topk(2)
        out = torch.zeros_like(x)
        for index in picked.unique().tolist():
            row, _ = torch.where(picked == index)
            out.index_add_(0, row, self.experts[index](x[row]))
        return out


@pytest.mark.parametrize(("routing", "experts"), [(Routing.BALANCED, 4), (Routing.WORST_CASE, 2)])
def test_experts_written_by_hand(routing: Routing, experts: int) -> None:
    module = _Experts()
    job = memplan.capture_job(
        module,
        torch.empty(8, 8),
        torch.optim.SGD(module.parameters()),
        assumptions=Assumptions(routing=routing),
    )
    graph = job.model.graph
    assert graph is not None
    assert graph.fixed_batch_size == 0
    linear = graph.operators.index("aten.linear.default")
    assert sum(node.operator == linear for node in graph.nodes) == 1 + experts
    assert any(f"routing: {routing.value}" in said for said in traced(job).assumptions)


def test_a_graph_of_another_routing_is_refused() -> None:
    model = Model(catalog=CatalogModel(name="transformers/mixtral", config=MIXTRAL | EAGER))
    job = captured(normalize(TrainingJob(model=model, micro_batch_size=16)))
    with pytest.raises(InvalidJob, match="captured with"):
        traced(replace(job, assumptions=Assumptions(routing=Routing.WORST_CASE)))
