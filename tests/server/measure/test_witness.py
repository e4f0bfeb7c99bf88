"""Real runs on the CPU against the simulated GPU: two ways to the same allocations.

The CPU is an independent witness: real tensors, real autograd and optimizers, no simulated device.
What differs is known and named here: workspaces of CUDA's libraries, which a CPU has none of; step
counts of optimizers, which lie in host memory and are not the GPU's; attention kernels.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from memplan.types import (
    Activation,
    CatalogModel,
    Convolution,
    DataType,
    Embedding,
    Flatten,
    GradientClipping,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Loss,
    Model,
    Normalization,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    Pooling,
    PoolingType,
    TrainingJob,
    TrainingLoop,
    TransformerEncoderLayer,
    ZeroGrad,
)
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure.comparison import EventComparison, compare_events
from memplan_server.measure.events import WORKSPACE
from memplan_server.measure.request import Request
from memplan_server.measure.run import Outcome, run
from memplan_server.measure.simulated import simulate

GPU = GpuCatalog.load().get("nvidia-a100-40gb")
SGD = Optimizer(type=OptimizerType.SGD, momentum=0.9)
ON_THE_HOST = {"lift_fresh"}
"""Step counts of Adam: tensors of the host, which is where everything is for a run on the CPU."""
NUMBERS = {"scalar_tensor"}
"""Numbers that slices are set to, likewise."""
COPIED_ON_CUDA = {
    "transformers/bert": {"embedding", "embedding_dense_backward"},
    "transformers/t5": {"embedding_dense_backward"},
}
"""CUDA's kernels copy indices and gradients that are not contiguous."""
BUFFERED_ON_THE_HOST = {"binary_cross_entropy_with_logits"}
"""The CPU's logarithm of a sigmoid has a buffer of its input's size; CUDA's has none."""


def stack(*layers: Layer, shape: tuple[int, ...]) -> TrainingJob:
    return TrainingJob(
        model=Model(layer_stack=LayerStack(layers=layers)), inputs=(InputTensor(shape=shape),)
    )


MLP = stack(
    Layer(flatten=Flatten()),
    Layer(linear=Linear(out_features=128)),
    Layer(activation=Activation()),
    Layer(linear=Linear(out_features=10)),
    shape=(1, 28, 28),
)
CNN = stack(
    Layer(convolution=Convolution(out_channels=16, kernel_size=(3,), padding=(1,))),
    Layer(normalization=Normalization()),
    Layer(activation=Activation()),
    Layer(convolution=Convolution(out_channels=16, kernel_size=(3,), padding=(1,), groups=16)),
    Layer(pooling=Pooling(type=PoolingType.ADAPTIVE_AVERAGE)),
    Layer(flatten=Flatten()),
    Layer(linear=Linear(out_features=10)),
    shape=(3, 32, 32),
)
TRANSFORMER = stack(
    Layer(embedding=Embedding(num_embeddings=100, embedding_dim=32)),
    Layer(
        transformer_encoder_layer=TransformerEncoderLayer(
            num_heads=4, dim_feedforward=64, dropout=0.0
        ),
        repeat=2,
    ),
    Layer(flatten=Flatten()),
    Layer(linear=Linear(out_features=10)),
    shape=(16,),
)
RESNET = TrainingJob(
    model=Model(catalog=CatalogModel(name="torchvision/resnet18")),
    inputs=(InputTensor(shape=(3, 32, 32)),),
)


def really(job: TrainingJob) -> Outcome:
    request = Request(job=job, device_type="cpu", warmup_steps=0, steps=2, history=True)
    return run(replace(request, micro_steps=min(2, job.loop.accumulation_steps)))


def compared(job: TrainingJob, **fields: object) -> EventComparison:
    job = normalize(replace(job, micro_batch_size=4, **fields))  # type: ignore[arg-type]
    events = really(job).seen.events
    assert events is not None
    return compare_events(events, simulate(job, GPU).events)


def beside_workspaces(found: EventComparison) -> set[str]:
    """What only the simulation allocates."""
    return {g.operator for g in found.only_simulated if not g.operator.endswith(WORKSPACE)}


LOOPS = {
    "plain": TrainingLoop(),
    "accumulating": TrainingLoop(accumulation_steps=2),
    "clipping": TrainingLoop(gradient_clipping=GradientClipping.NORM),
    "letting go": TrainingLoop(keep_outputs=False, zero_grad=ZeroGrad.AFTER_STEP),
    "late zeroing": TrainingLoop(zero_grad=ZeroGrad.BEFORE_BACKWARD),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("job", "optimizer"),
    [
        pytest.param(MLP, Optimizer(type=OptimizerType.ADAM), id="mlp-adam"),
        pytest.param(CNN, SGD, id="cnn-sgd"),
    ],
)
def test_the_simulation_allocates_and_frees_what_a_real_run_does(
    job: TrainingJob, optimizer: Optimizer, loop: str
) -> None:
    found = compared(job, optimizer=optimizer, loop=LOOPS[loop])
    assert found.matched_allocations > 30
    assert {group.operator for group in found.only_measured} <= ON_THE_HOST
    assert beside_workspaces(found) == set()
    assert found.resized == ()
    assert found.freed_elsewhere == ()


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.MEAN, Loss.BINARY_CROSS_ENTROPY_WITH_LOGITS])
def test_so_it_is_with_every_loss(loss: Loss) -> None:
    found = compared(MLP, optimizer=SGD, loss=loss)
    groups = (*found.only_measured, *found.resized, *found.freed_elsewhere)
    differing = {group.operator for group in groups} | beside_workspaces(found)
    assert differing <= (BUFFERED_ON_THE_HOST if "cross" in loss.value else set())


def test_a_resnet_is_the_same_but_for_the_workspaces() -> None:
    found = compared(RESNET, optimizer=SGD)
    assert found.only_measured == found.resized == found.freed_elsewhere == ()
    assert beside_workspaces(found) == set()
    assert found.matched_allocations > 500


EAGER = {"attn_implementation": "eager", "vocab_size": 200}
"""Attention without a kernel of its own, which CPU and GPU execute alike."""
MODELS: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    "torchvision/mobilenet_v3_small": ((3, 64, 64), {}),
    "torchvision/regnet_y_400mf": ((3, 64, 64), {}),
    "transformers/llama": (
        (16,),
        {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "intermediate_size": 128},
    ),
    "transformers/bert": (
        (16,),
        {
            "hidden_size": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 128,
        },
    ),
    "transformers/gpt2": (
        (16,),
        {"n_layer": 2, "n_embd": 64, "n_head": 2}
        | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
    "transformers/t5": (
        (16,),
        {"num_layers": 2, "num_decoder_layers": 2, "d_model": 64, "d_kv": 16, "num_heads": 4}
        | {"dropout_rate": 0.0},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_catalogs_are_the_same_but_for_the_workspaces(name: str) -> None:
    shape, config = MODELS[name]
    text = len(shape) == 1
    job = TrainingJob(
        model=Model(catalog=CatalogModel(name=name, config=config | (EAGER if text else {}))),
        inputs=(InputTensor(shape=shape, dtype=DataType.INT64 if text else DataType.UNSPECIFIED),),
    )
    found = compared(job, optimizer=SGD)
    copied = COPIED_ON_CUDA.get(name, set())
    assert {group.operator for group in found.only_measured} <= (NUMBERS if text else set())
    assert found.resized == ()
    assert beside_workspaces(found) == copied
    freed_elsewhere = {group.operator for group in found.freed_elsewhere}
    assert freed_elsewhere <= ({*copied, "sum"} if copied else set())


STEPS = OptimizerImplementation
OPTIMIZERS = [
    Optimizer(type=kind, implementation=how, state_count=2 if kind is OptimizerType.CUSTOM else 0)
    for kind in OptimizerType
    for how in (STEPS.FOREACH, STEPS.SINGLE, STEPS.FUSED)
    if kind is not OptimizerType.UNSPECIFIED
    and (kind is not OptimizerType.CUSTOM or how is STEPS.SINGLE)
    and (kind not in (OptimizerType.RMSPROP, OptimizerType.ADAFACTOR) or how is not STEPS.FUSED)
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.type}-{o.implementation}")
def test_optimizers_are_the_same_but_for_their_step_counts(optimizer: Optimizer) -> None:
    found = compared(MLP, optimizer=optimizer)
    small = {"lift_fresh", "zeros"}
    assert all(g.operator in small and g.block_bytes == 512 * g.count for g in found.only_measured)
    assert beside_workspaces(found) == set()
    assert found.resized == found.freed_elsewhere == ()


def test_a_transformer_differs_in_its_attention_only() -> None:
    found = compared(TRANSFORMER, optimizer=SGD)
    # CUDA's kernel gives its output in the order batch, sequence, head, which nn.MultiheadAttention
    # makes contiguous by a clone; the CPU's needs none.
    assert {group.operator for group in found.only_measured} == {
        "_scaled_dot_product_flash_attention_for_cpu"
    }
    assert beside_workspaces(found) == {
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_efficient_attention_backward",
        "clone",
    }
    assert found.resized == ()
    # the gradients of the two kernels lie differently in memory and are let go of in another order
    assert {group.operator for group in found.freed_elsewhere} == {
        "_scaled_dot_product_flash_attention_for_cpu_backward"
    }
    assert found.matched_allocations > 100
