"""What a model decides by values is decided by what the job states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from jobs import catalog_job, mnist
from torch import nn

from memplan.fakes import known
from memplan.fakes.routing import CHOICES, route
from memplan.types import Assumptions, DataType, InputTensor, Loss, Padding, Precision, Routing
from memplan_server import models
from memplan_server.errors import InvalidJob
from memplan_server.models import BuiltModel
from memplan_server.simulate import attention, device, worker
from memplan_server.simulate import trace as tracing
from memplan_server.simulate.recorder import Recorder
from memplan_server.timeline import Timeline

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 512,
}
MIXTRAL = SMALL | {"num_local_experts": 8, "num_experts_per_tok": 2}
AMPERE = (8, 0)


def traced(name: str, config: dict[str, Any], *inputs: InputTensor, **fields: Any) -> Timeline:
    tokens = inputs or (InputTensor(name="input_ids", shape=(64,)),)
    job = catalog_job(name, config, inputs=tokens, **fields)
    return Timeline.from_bytes(worker.trace(job, AMPERE))


def sizes(timeline: Timeline) -> set[int]:
    return set(timeline.sizes(8).tolist())


@pytest.mark.parametrize(
    ("routing", "tokens"), [(Routing.BALANCED, 8 * 64 * 2 // 8), (Routing.WORST_CASE, 8 * 64)]
)
def test_routing_gives_each_expert_its_tokens(routing: Routing, tokens: int) -> None:
    eager = MIXTRAL | {"experts_implementation": "eager"}
    timeline = traced("transformers/mixtral", eager, assumptions=Assumptions(routing=routing))
    gate_and_up = tokens * 2 * 128 * 4
    assert timeline.affine
    assert gate_and_up in sizes(timeline)
    assert any(f"routing: {routing.value}" in said for said in timeline.assumptions)


def test_grouped_experts_do_not_depend_on_routing() -> None:
    by_routing = [
        traced("transformers/mixtral", MIXTRAL, assumptions=Assumptions(routing=routing))
        for routing in (Routing.BALANCED, Routing.WORST_CASE)
    ]
    assert sizes(by_routing[0]) == sizes(by_routing[1])
    assert not any("routing" in said for said in by_routing[0].assumptions)


def test_tokens_of_a_balanced_router_go_to_distinct_experts_evenly() -> None:
    route(Routing.BALANCED)
    make, _ = CHOICES[torch.ops.aten.topk.default](torch.empty(4, 5, 6), 4, 1)
    _, picked = make()
    assert picked.shape == (4, 4, 6)
    assert all(len(set(picked[i, :, j].tolist())) == 4 for i in range(4) for j in range(6))
    counts = picked.flatten().bincount(minlength=5)
    assert counts.max() - counts.min() <= 1


def test_layer_drop_leaves_layers_in() -> None:
    speech = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4}
    audio = InputTensor(name="input_values", shape=(4000,))
    two, four = (
        traced("transformers/wav2vec2", speech | {"num_hidden_layers": n}, audio) for n in (2, 4)
    )
    in_layers = [
        {e for e in t.module.tolist() if e >= 0 and ".layers." in t.modules[e].path}
        for t in (two, four)
    ]
    assert len(in_layers[1]) == 2 * len(in_layers[0]) > 0
    assert any("layer drop" in said for said in four.assumptions)


@pytest.mark.parametrize(
    ("padding", "masked"), [(Padding.NONE, False), (Padding.PADDED, True), (Padding.PACKED, True)]
)
def test_padding_decides_on_the_mask(padding: Padding, masked: bool) -> None:
    timeline = traced(
        "transformers/llama",
        SMALL,
        InputTensor(name="input_ids", shape=(52,)),
        precision=Precision.BF16,
        assumptions=Assumptions(padding=padding),
    )
    assert (8 * 52 * 52 in sizes(timeline)) == masked  # a boolean for each pair of tokens
    said = any(f"padding: {padding.value}" in sentence for sentence in timeline.assumptions)
    assert said == masked


def test_a_mask_without_zeros_is_no_mask() -> None:
    tokens = InputTensor(name="input_ids", shape=(52,))
    mask = InputTensor(name="attention_mask", shape=(52,))
    timeline = traced("transformers/llama", SMALL, tokens, mask, precision=Precision.BF16)
    assert 8 * 52 * 52 not in sizes(timeline)
    assert "attention masks hold ones only (padding: none)" in timeline.assumptions


def test_images_cannot_be_padded() -> None:
    job = catalog_job("transformers/vit", assumptions=Assumptions(padding=Padding.PADDED))
    with pytest.raises(InvalidJob) as caught:
        models.build(job)
    assert caught.value.violations[0].field == "job.assumptions.padding"


class _Selected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x.flatten(1))
        kept = torch.arange(10, device=y.device) > 6
        repeats = torch.full((3,), 2, device=y.device)
        out = y[:, kept].repeat_interleave(repeats, dim=1)
        assert out.shape == (y.shape[0], 6)
        return out


def test_a_known_mask_selects_what_it_selects() -> None:
    with torch.device("meta"):
        built = BuiltModel(
            module=_Selected(), inputs=(InputTensor(shape=(1, 28, 28), dtype=DataType.FLOAT32),)
        )
    timeline = tracing.trace_affine(mnist(), built, AMPERE)
    assert timeline is not None
    assert timeline.assumptions == ()


def known_after(make: Callable[[torch.device], torch.Tensor]) -> torch.Tensor | None:
    where = device.register()
    with Recorder(where):
        return known.value_of(make(where))


def written_through_a_view(where: torch.device) -> torch.Tensor:
    made = torch.arange(4, device=where) * torch.empty((), dtype=torch.int64, device=where).fill_(2)
    made[1:3] = 9
    return made


def filled_in_on_the_host(where: torch.device) -> torch.Tensor:
    offsets = torch.empty(3, dtype=torch.int64, device="cpu")
    offsets[0] = 0
    offsets[1:] = torch.arange(1, 3, device=where).cumsum(0)
    return offsets


CONSTANT = torch.tensor([3, 1, 2])


def moved_from_the_host(where: torch.device) -> torch.Tensor:
    return CONSTANT.to(where) + torch.tensor(1, device=where)


def rank_of_something_unknown(where: torch.device) -> torch.Tensor:
    return torch.randn(1, 3, device=where).sort(1)[1] < 2


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (written_through_a_view, [0, 9, 9, 6]),
        (filled_in_on_the_host, [0, 1, 3]),
        (moved_from_the_host, [4, 2, 3]),
        (lambda where: torch.randperm(3, device=where), [0, 1, 2]),
        (rank_of_something_unknown, [[True, True, False]]),
        (lambda where: torch.empty(2, device=where).fill_(5).mul_(2), [10, 10]),
    ],
)
def test_values_are_followed(
    make: Callable[[torch.device], torch.Tensor], value: list[Any]
) -> None:
    found = known_after(make)
    assert found is not None
    assert found.tolist() == value


def unknown_in_part(where: torch.device) -> torch.Tensor:
    made = torch.zeros(3, device=where)
    made[1:] = torch.randn(2, device=where)
    return made


def constant_written_to(where: torch.device) -> torch.Tensor:
    made = torch.tensor([1.0, 2.0], device=where)
    made.mul_(torch.randn(2, device=where))
    return made


def drawn_by_chance(where: torch.device) -> torch.Tensor:
    return torch.empty(3, dtype=torch.int64, device="cpu").random_(0, 9)


def not_written_yet(where: torch.device) -> torch.Tensor:
    return torch.empty(3, dtype=torch.int64, device=where)


@pytest.mark.parametrize(
    "make", [unknown_in_part, constant_written_to, drawn_by_chance, not_written_yet]
)
def test_what_is_not_known_is_not_taken_for_known(
    make: Callable[[torch.device], torch.Tensor],
) -> None:
    assert known_after(make) is None


class _Conditional(nn.Module):
    """Wider where all of its input is positive, which it never is known to be."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Linear(784, 10), nn.Linear(784, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        out: torch.Tensor = self.wide(x) if (x > 0).all() else self.narrow(x)
        return out


@pytest.mark.parametrize(
    ("are_false", "features", "said"), [(False, 1000, "are true"), (True, 10, "are false")]
)
def test_unknown_conditions_are_what_the_job_says(
    are_false: bool, features: int, said: str
) -> None:
    with torch.device("meta"):
        image = InputTensor(shape=(1, 28, 28), dtype=DataType.FLOAT32)
        built = BuiltModel(module=_Conditional(), inputs=(image,))
    job = replace(mnist(), assumptions=Assumptions(conditions_are_false=are_false))
    timeline = tracing.trace_affine(job, built, AMPERE)
    assert timeline is not None
    wide = {e for e in timeline.events.tolist() if e >= 0 and timeline.sizes(8)[e] == 8 * 1000 * 4}
    assert bool(wide) == (features == 1000)
    (sentence,) = timeline.assumptions
    assert said in sentence
    assert ("conditions_are_false" in sentence) == are_false


class _Sliding(nn.Module):
    """Sizes by `torch.div` of numbers, and a mask written to through a view, as Longformer does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros((2, x.shape[0], 10), device=x.device)[0]
        mask[mask == 0] = 3.0
        chunks = int(torch.div(10, 5, rounding_mode="trunc"))
        assert chunks == 2
        out: torch.Tensor = self.linear(x.flatten(1)).view(x.shape[0], chunks, 5)
        return out if (mask > 2).all() else self.linear(x)


def test_views_and_numbers_are_followed() -> None:
    with torch.device("meta"):
        image = InputTensor(shape=(1, 28, 28), dtype=DataType.FLOAT32)
        built = BuiltModel(module=_Sliding(), inputs=(image,))
    timeline = tracing.trace_affine(replace(mnist(), loss=Loss.MEAN), built, AMPERE)
    assert timeline is not None
    assert timeline.assumptions == ()


def test_switch_transformers_has_sparse_layers() -> None:
    config = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2}
    config |= {"num_decoder_layers": 2, "num_experts": 8, "vocab_size": 512}
    config |= {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    timeline = traced("transformers/switch_transformers", config, precision=Precision.BF16)
    assert timeline.affine
    assert any("experts.expert_7" in module.path for module in timeline.modules)
    assert any("routing: balanced" in said for said in timeline.assumptions)


@pytest.mark.parametrize("padding", [Padding.NONE, Padding.PADDED, Padding.PACKED])
def test_flash_attn_keeps_no_square(padding: Padding) -> None:
    config = SMALL | {"attn_implementation": "flash_attention_2", "num_key_value_heads": 2}
    assumptions = Assumptions(padding=padding)
    timeline = traced(
        "transformers/llama", config, precision=Precision.AMP_BF16, assumptions=assumptions
    )
    assert attention.kernels_used() == {"flash"}
    assert "attention" in timeline.traits
    assert (7, 0) not in timeline.kernel_classes


@pytest.mark.parametrize(
    ("precision", "gpu", "field"),
    [(Precision.FP32, (8, 0), "job.precision"), (Precision.BF16, (7, 5), "attn_implementation")],
)
def test_flash_attn_is_refused_where_it_refuses(
    precision: Precision, gpu: tuple[int, int], field: str
) -> None:
    config = SMALL | {"attn_implementation": "flash_attention_2"}
    job = catalog_job("transformers/llama", config, precision=precision)
    with pytest.raises(InvalidJob) as caught:
        worker.trace(job, gpu)
    assert caught.value.violations[0].field.endswith(field)
