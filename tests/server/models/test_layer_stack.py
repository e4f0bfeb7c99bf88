"""Models written down layer by layer: every kind of layer, every refusal."""

from __future__ import annotations

from typing import Any

import pytest
from building import linear, output_shape, parameters, stacked, violation
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.types import (
    Activation,
    ActivationType,
    Convolution,
    DataType,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    Linear,
    Loss,
    MultiHeadAttention,
    Normalization,
    NormalizationType,
    Pooling,
    PoolingType,
    Precision,
    Recurrent,
    RecurrentType,
    Reshape,
    Residual,
    SequencePooling,
    SequencePoolingType,
    TransformerEncoderLayer,
    Upsample,
)
from memplan_server.models import build

FLATTEN = Layer(flatten=Flatten())
RELU = Layer(activation=Activation(type=ActivationType.RELU))


def conv(out: int, kernel: int = 3, **fields: Any) -> Layer:
    return Layer(convolution=Convolution(out_channels=out, kernel_size=(kernel,), **fields))


def transposed(out: int, kernel: int, **fields: Any) -> Layer:
    made = Convolution(out_channels=out, kernel_size=(kernel,), **fields)
    return Layer(transposed_convolution=made)


def pool(kind: PoolingType, **fields: Any) -> Layer:
    return Layer(pooling=Pooling(type=kind, **fields))


def norm(kind: NormalizationType, **fields: Any) -> Layer:
    return Layer(normalization=Normalization(type=kind, **fields))


def residual(*body: Layer, shortcut: tuple[Layer, ...] = ()) -> Layer:
    return Layer(residual=Residual(body=body, shortcut=shortcut))


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((1, 28, 28), 784 * 512 + 512 + 512 * 10 + 10),
        ((3, 32, 32), 3072 * 512 + 512 + 512 * 10 + 10),
    ],
    ids=["mnist", "cifar-10"],
)
def test_the_same_multi_layer_perceptron_takes_mnist_and_cifar(
    shape: tuple[int, ...], count: int
) -> None:
    built = build(stacked(shape, FLATTEN, linear(512), RELU, linear(10)))
    assert parameters(built) == count
    assert output_shape(built) == (2, 10)
    assert built.inputs[0].shape == shape
    assert not built.returns_loss


KINDS: dict[str, tuple[tuple[int, ...], tuple[Layer, ...], tuple[int, ...], int]] = {
    "flatten": ((2, 3), (FLATTEN,), (6,), 0),
    "linear": ((5,), (linear(7),), (7,), 42),
    "linear without bias": (
        (5,),
        (Layer(linear=Linear(out_features=7, bias=False)),),
        (7,),
        35,
    ),
    "convolution 1d": ((4, 20), (conv(6),), (6, 18), 6 * 4 * 3 + 6),
    "convolution 2d": ((3, 32, 32), (conv(8, 5, stride=(2,), padding=(2,)),), (8, 16, 16), 608),
    "convolution 3d": ((1, 8, 8, 8), (conv(2),), (2, 6, 6, 6), 56),
    "depthwise": ((8, 9, 9), (conv(8, groups=-1, bias=False, same_padding=True),), (8, 9, 9), 72),
    "dilated": ((1, 9), (conv(1, 3, dilation=(3,)),), (1, 3), 4),
    "transposed convolution": (
        (8, 7, 7),
        (transposed(4, 3, stride=(2,), padding=(1,), output_padding=(1,)),),
        (4, 14, 14),
        8 * 4 * 9 + 4,
    ),
    "max pooling": ((3, 9, 9), (pool(PoolingType.MAX, kernel_size=(2,)),), (3, 4, 4), 0),
    "average pooling": (
        (3, 9, 9),
        (pool(PoolingType.AVERAGE, kernel_size=(3,), stride=(2,), padding=(1,)),),
        (3, 5, 5),
        0,
    ),
    "adaptive max pooling": (
        (3, 9, 9),
        (pool(PoolingType.ADAPTIVE_MAX, output_size=(4, 2)),),
        (3, 4, 2),
        0,
    ),
    "global pooling": ((3, 9, 9), (pool(PoolingType.ADAPTIVE_AVERAGE),), (3, 1, 1), 0),
    "batch norm of features": ((5,), (norm(NormalizationType.BATCH),), (5,), 10),
    "batch norm 2d": ((3, 4, 4), (norm(NormalizationType.BATCH),), (3, 4, 4), 6),
    "layer norm": ((4, 5), (norm(NormalizationType.LAYER),), (4, 5), 10),
    "group norm": ((6, 4), (norm(NormalizationType.GROUP, num_groups=3),), (6, 4), 12),
    "instance norm": ((3, 4, 4), (norm(NormalizationType.INSTANCE),), (3, 4, 4), 0),
    "rms norm": ((4, 5), (norm(NormalizationType.RMS),), (4, 5), 5),
    "dropout": ((5,), (Layer(dropout=Dropout(p=0.1)),), (5,), 0),
    "embedding": (
        (12,),
        (Layer(embedding=Embedding(num_embeddings=100, embedding_dim=8)),),
        (12, 8),
        800,
    ),
    "attention": (
        (12, 8),
        (Layer(multi_head_attention=MultiHeadAttention(num_heads=2)),),
        (12, 8),
        4 * (64 + 8),
    ),
    "encoder layer": (
        (12, 8),
        (Layer(transformer_encoder_layer=TransformerEncoderLayer(num_heads=2)),),
        (12, 8),
        288 + (8 * 2048 + 2048) + (2048 * 8 + 8) + 32,
    ),
    "lstm": (
        (12, 8),
        (Layer(recurrent=Recurrent(hidden_size=16, bidirectional=True)),),
        (12, 32),
        2 * 4 * 16 * (8 + 16 + 2),
    ),
    "gru": (
        (12, 8),
        (Layer(recurrent=Recurrent(type=RecurrentType.GRU, hidden_size=16, num_layers=2)),),
        (12, 16),
        3 * 16 * (8 + 16 + 2) + 3 * 16 * (16 + 16 + 2),
    ),
    "rnn": (
        (12, 8),
        (Layer(recurrent=Recurrent(type=RecurrentType.RNN, hidden_size=16)),),
        (12, 16),
        16 * (8 + 16 + 2),
    ),
    "residual": ((4,), (residual(linear(4), RELU),), (4,), 20),
    "residual with shortcut": (
        (3, 8, 8),
        (residual(conv(6, same_padding=True), shortcut=(conv(6, 1),)),),
        (6, 8, 8),
        168 + 24,
    ),
    "upsample": ((3, 4, 5), (Layer(upsample=Upsample(scale_factor=3)),), (3, 12, 15), 0),
    "mean of a sequence": ((12, 8), (Layer(sequence_pooling=SequencePooling()),), (8,), 0),
    "first of a sequence": (
        (12, 8),
        (Layer(sequence_pooling=SequencePooling(type=SequencePoolingType.FIRST)),),
        (8,),
        0,
    ),
    "last of a sequence": (
        (12, 8),
        (Layer(sequence_pooling=SequencePooling(type=SequencePoolingType.LAST)),),
        (8,),
        0,
    ),
    "reshape": ((12, 8), (Layer(reshape=Reshape(shape=(4, -1))),), (4, 24), 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_have_pytorchs_shapes_and_parameters(kind: str) -> None:
    shape, layers, out, count = KINDS[kind]
    built = build(stacked(shape, *layers))
    assert output_shape(built) == (2, *out)
    assert parameters(built) == count
    # What the stack itself thinks flows out is what a last layer takes for its input features.
    followed = build(stacked(shape, *layers, linear(1)))
    assert parameters(followed) == count + out[-1] + 1
    assert output_shape(followed) == (2, *out[:-1], 1)


def test_every_activation_keeps_the_shape() -> None:
    kinds = [kind for kind in ActivationType if kind is not ActivationType.UNSPECIFIED]
    layers = [
        Layer(activation=Activation(type=kind, inplace=inplace))
        for kind in kinds
        for inplace in (False, True)
    ]
    assert output_shape(build(stacked((5,), linear(5), *layers))) == (2, 5)


SIZES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(
    spatial=st.lists(SIZES, min_size=1, max_size=3),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    up=st.booleans(),
)
def test_convolutions_of_any_numbers_have_pytorchs_shape_or_are_refused(
    spatial: list[int], kernel: int, stride: int, padding: int, dilation: int, up: bool
) -> None:
    numbers = {"stride": (stride,), "padding": (padding,), "dilation": (dilation,)}
    layer = (transposed if up else conv)(2, kernel, **numbers)
    job = stacked((4, *spatial), layer, FLATTEN, linear(1))
    span = dilation * (kernel - 1) + 1
    grown = [(n - 1) * stride - 2 * padding + span for n in spatial]
    impossible = min(grown) < 1 if up else any(n + 2 * padding < span for n in spatial)
    if impossible:
        assert "layers[0]" in violation(job).field
    else:
        assert output_shape(build(job)) == (2, 1)


def test_wrong_in_features_are_told_with_the_layer_and_both_numbers() -> None:
    found = violation(stacked((1, 28, 28), FLATTEN, linear(128), linear(10, in_features=127)))
    assert found.field == "job.model.layer_stack.layers[2].linear.in_features"
    assert "2.linear" in found.description
    assert "127" in found.description
    assert "128" in found.description


def test_a_missing_flatten_is_suggested() -> None:
    found = violation(stacked((1, 28, 28), linear(128, in_features=784)))
    assert found.field == "job.model.layer_stack.layers[0].linear.in_features"
    assert "784" in found.description
    assert "28 flow in" in found.description
    assert "flatten" in found.description


def test_a_stated_in_features_that_agrees_is_taken() -> None:
    assert parameters(build(stacked((784,), linear(10, in_features=784)))) == 7850


def test_a_layer_is_told_by_its_name() -> None:
    head = Layer(name="head", linear=Linear(out_features=10, in_features=9))
    assert violation(stacked((8,), head)).description.startswith("Layer head ")


@pytest.mark.parametrize("shape", [(28, 28, 1), (224, 224, 3)])
def test_height_width_channels_are_recognised(shape: tuple[int, ...]) -> None:
    found = violation(stacked(shape, conv(8)))
    assert found.field == "job.inputs[0].shape"
    assert "HxWxC" in found.description
    assert "x".join(map(str, (shape[2], *shape[:2]))) in found.description


def test_height_width_channels_that_are_meant_are_taken() -> None:
    built = build(stacked((224, 224, 3), conv(8, in_channels=224)))
    assert output_shape(built) == (2, 8, 222, 1)


LAYER = "job.model.layer_stack.layers[0]"
HUGE = 2**62
REFUSED: dict[str, tuple[tuple[int, ...], Layer, str, str]] = {
    "in_channels": ((3, 8, 8), conv(4, in_channels=4), ".convolution.in_channels", "3 flow in"),
    "kernel too large": ((3, 8, 8), conv(4, 9), ".convolution.kernel_size", "does not fit"),
    "no kernel": (
        (3, 8, 8),
        Layer(convolution=Convolution(out_channels=4)),
        ".convolution.kernel_size",
        "needs a kernel size",
    ),
    "groups": ((6, 8), conv(8, groups=4), ".convolution.groups", "cannot divide 6"),
    "convolution of features": ((6,), conv(8), ".convolution", "takes [channels"),
    "two numbers in three dimensions": (
        (3, 8, 8, 8),
        conv(4, stride=(1, 2)),
        ".convolution.stride",
        "has 2 numbers for 3",
    ),
    "output padding": (
        (3, 8),
        transposed(4, 3, output_padding=(1,)),
        ".transposed_convolution.output_padding",
        "below its stride",
    ),
    "transposed padding": (
        (3, 2),
        transposed(4, 1, padding=(5,)),
        ".transposed_convolution.padding",
        "takes away",
    ),
    "pooling padding": (
        (3, 8, 8),
        pool(PoolingType.MAX, kernel_size=(2,), padding=(2,)),
        ".pooling.padding",
        "more than half",
    ),
    "group norm": (
        (6, 8),
        norm(NormalizationType.GROUP, num_groups=4),
        ".normalization.num_groups",
        "cannot divide 6",
    ),
    "instance norm of features": (
        (6,),
        norm(NormalizationType.INSTANCE),
        ".normalization",
        "takes [channels",
    ),
    "heads": (
        (12, 8),
        Layer(multi_head_attention=MultiHeadAttention(num_heads=3)),
        ".multi_head_attention.num_heads",
        "8 features",
    ),
    "attention of features": (
        (8,),
        Layer(multi_head_attention=MultiHeadAttention(num_heads=2)),
        ".multi_head_attention",
        "one sequence",
    ),
    "encoder activation": (
        (12, 8),
        Layer(
            transformer_encoder_layer=TransformerEncoderLayer(
                num_heads=2, activation=ActivationType.TANH
            )
        ),
        ".transformer_encoder_layer.activation",
        "not TANH",
    ),
    "recurrence of features": (
        (8,),
        Layer(recurrent=Recurrent(hidden_size=4)),
        ".recurrent",
        "one sequence",
    ),
    "upsample of features": ((8,), Layer(upsample=Upsample()), ".upsample", "takes [channels"),
    "pooling of features": (
        (8,),
        Layer(sequence_pooling=SequencePooling()),
        ".sequence_pooling",
        "one sequence",
    ),
    "reshape": ((12,), Layer(reshape=Reshape(shape=(5, -1))), ".reshape.shape", "of the 12"),
    "residual": ((8,), residual(linear(4)), ".residual.body", "cannot add its body's 4 to the 8"),
    "residual shortcut": (
        (8,),
        residual(linear(4), shortcut=(linear(5),)),
        ".residual.shortcut",
        "to the 5",
    ),
    "empty residual": ((8,), residual(), ".residual.body", "at least one"),
    "no kind": ((8,), Layer(), "", "exactly one of"),
    "two kinds": ((8,), Layer(flatten=Flatten(), dropout=Dropout()), "", "exactly one of"),
    "huge linear": ((8,), linear(HUGE), ".linear.out_features", "2^40"),
    "huge convolution": ((3, 8, 8), conv(HUGE), ".convolution.out_channels", "2^40"),
    "huge kernel": ((3, 8, 8), conv(1, HUGE), ".convolution.out_channels", "2^40"),
    "huge padding": ((3, 8, 8), conv(1, padding=(HUGE,)), ".convolution", "2^40"),
    "huge embedding": (
        (8,),
        Layer(embedding=Embedding(num_embeddings=HUGE, embedding_dim=HUGE)),
        ".embedding.num_embeddings",
        "2^40",
    ),
    "huge recurrence": (
        (4, 8),
        Layer(recurrent=Recurrent(hidden_size=HUGE)),
        ".recurrent.hidden_size",
        "2^40",
    ),
    "huge feed-forward": (
        (4, 8),
        Layer(transformer_encoder_layer=TransformerEncoderLayer(num_heads=1, dim_feedforward=HUGE)),
        ".transformer_encoder_layer.dim_feedforward",
        "2^40",
    ),
    "huge output": (
        (3, 8, 8),
        pool(PoolingType.ADAPTIVE_AVERAGE, output_size=(HUGE,)),
        ".pooling",
        "2^40",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_do_not_go_together_are_refused_with_their_place(case: str) -> None:
    shape, layer, field, said = REFUSED[case]
    found = violation(stacked(shape, layer))
    assert found.field == f"{LAYER}{field}"
    assert said in found.description


def test_places_within_residual_layers_are_told() -> None:
    found = violation(stacked((8,), RELU, residual(linear(8), linear(8, in_features=9))))
    within = "job.model.layer_stack.layers[1].residual.body[1].linear.in_features"
    assert found.field == within


def nested(depth: int) -> Layer:
    layer = linear(8)
    for _ in range(depth):
        layer = residual(layer)
    return layer


def test_nesting_has_a_limit() -> None:
    assert parameters(build(stacked((8,), nested(15)))) == 72
    found = violation(stacked((8,), nested(16)))
    assert found.field == "job.model.layer_stack.layers"
    assert "16 deep" in found.description


def test_the_number_of_layers_has_a_limit_with_repeats_unrolled() -> None:
    thousand = Layer(repeat=1000, linear=Linear(out_features=8))
    assert parameters(build(stacked((8,), thousand, thousand))) == 2000 * 72
    assert "2,000 layers" in violation(stacked((8,), thousand, thousand, RELU)).description
    many = Layer(repeat=2**31, linear=Linear(out_features=8))
    assert "2,000 layers" in violation(stacked((8,), many)).description
    deep = Layer(repeat=100, residual=Residual(body=(Layer(repeat=100, dropout=Dropout()),)))
    assert "2,000 layers" in violation(stacked((8,), deep)).description


def test_repeats_have_weights_of_their_own_under_names_of_their_own() -> None:
    block = Layer(name="block", repeat=3, linear=Linear(out_features=8))
    built = build(stacked((8,), block))
    assert parameters(built) == 3 * 72
    assert "block.2.weight" in dict(built.module.named_parameters())


def test_names_that_clash_are_told_apart() -> None:
    same = Layer(name="a.b", linear=Linear(out_features=8))
    digits = Layer(name="0", linear=Linear(out_features=8))
    built = build(stacked((8,), same, same, digits))
    assert parameters(built) == 3 * 72
    assert output_shape(built) == (2, 8)


def test_a_stack_without_layers_is_refused() -> None:
    assert violation(stacked((8,))).field == "job.model.layer_stack.layers"


def test_a_stack_takes_one_input_of_numbers_or_indices() -> None:
    job = stacked((8,), linear(4))
    without = type(job)(model=job.model)
    assert violation(without).field == "job.inputs"
    assert violation(stacked((), linear(4))).field == "job.inputs[0].shape"
    boolean = stacked((8,), linear(4), dtype=DataType.BOOL)
    assert violation(boolean).field == "job.inputs[0].dtype"
    assert violation(stacked((8,), linear(4), loss=Loss.MODEL)).field == "job.loss"


def test_the_first_layer_says_whether_the_input_holds_indices() -> None:
    embedding = Layer(embedding=Embedding(num_embeddings=10, embedding_dim=4))
    assert build(stacked((8,), embedding)).inputs[0].dtype is DataType.INT64
    assert build(stacked((8,), linear(4))).inputs[0].dtype is DataType.FLOAT32
    half = build(stacked((8,), linear(4), precision=Precision.BF16))
    assert half.inputs[0].dtype is DataType.BFLOAT16
    wrong = stacked((8,), embedding, dtype=DataType.FLOAT32)
    assert violation(wrong).field == "job.inputs[0].dtype"
    wrong = stacked((8,), linear(4), dtype=DataType.INT64)
    assert violation(wrong).field == "job.inputs[0].dtype"
    late = violation(stacked((8,), linear(4), embedding))
    assert late.field == "job.model.layer_stack.layers[1].embedding"


def test_what_is_taken_for_granted_is_said_once() -> None:
    attention = Layer(repeat=2, multi_head_attention=MultiHeadAttention(num_heads=2))
    said = build(stacked((4, 8), attention)).assumptions
    assert len(said) == 1
    assert "need_weights=False" in said[0]
