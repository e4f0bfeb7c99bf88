"""Jobs over models of many families, small where the library lets them be."""

from __future__ import annotations

from typing import Any

from memplan.types import (
    CatalogModel,
    DataType,
    Embedding,
    Flatten,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Model,
    Optimizer,
    OptimizerType,
    Recurrent,
    RecurrentType,
    SequencePooling,
    TrainingJob,
)
from memplan_server.jobs import normalize

TWO_LAYERS = {"num_hidden_layers": 2}


def catalog_job(name: str, config: dict[str, Any] | None = None, **fields: Any) -> TrainingJob:
    """A job of a catalog model with its default inputs."""
    model = Model(catalog=CatalogModel(name=name, config=config or {}))
    return normalize(TrainingJob(**{"model": model, "micro_batch_size": 8, **fields}))


def recurrent(kind: RecurrentType) -> TrainingJob:
    layers = (
        Layer(embedding=Embedding(num_embeddings=1000, embedding_dim=64)),
        Layer(recurrent=Recurrent(type=kind, hidden_size=128, num_layers=2, bidirectional=True)),
        Layer(sequence_pooling=SequencePooling()),
        Layer(linear=Linear(out_features=10)),
    )
    return stack_job(layers, InputTensor(shape=(50,), dtype=DataType.INT64))


def stack_job(layers: tuple[Layer, ...], *inputs: InputTensor) -> TrainingJob:
    return normalize(
        TrainingJob(
            model=Model(layer_stack=LayerStack(layers=layers)),
            inputs=inputs,
            optimizer=Optimizer(type=OptimizerType.ADAM),
            micro_batch_size=8,
        )
    )


def mnist() -> TrainingJob:
    layers = (
        Layer(flatten=Flatten()),
        Layer(linear=Linear(out_features=128)),
        Layer(linear=Linear(out_features=10)),
    )
    return stack_job(layers, InputTensor(shape=(1, 28, 28)))


TORCHVISION = (
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "resnext50_32x4d",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "efficientnet_b0",
    "regnet_y_400mf",
    "mnasnet0_5",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
)
TIMM = (
    "deit_tiny_patch16_224",
    "mixer_s32_224",
    "resmlp_12_224",
    "rexnet_100",
    "convmixer_768_32",
)
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "bert": TWO_LAYERS,
    "roberta": TWO_LAYERS,
    "electra": TWO_LAYERS,
    "distilbert": {"n_layers": 2},
    "vit": TWO_LAYERS,
    "gpt2": {"n_layer": 2},
    "opt": TWO_LAYERS,
    "llama": TWO_LAYERS,
    "qwen2": TWO_LAYERS,
    "t5": {"num_layers": 2, "num_decoder_layers": 2},
    "bart": {"encoder_layers": 2, "decoder_layers": 2},
}

JOBS: dict[str, TrainingJob] = {
    **{name: catalog_job(f"torchvision/{name}") for name in TORCHVISION},
    **{name: catalog_job(f"timm/{name}") for name in TIMM},
    **{name: catalog_job(f"transformers/{name}", c) for name, c in TRANSFORMERS.items()},
    "lstm": recurrent(RecurrentType.LSTM),
    "gru": recurrent(RecurrentType.GRU),
    "mnist": mnist(),
}
