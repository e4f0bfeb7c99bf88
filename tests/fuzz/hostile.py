"""Requests that nobody means well with: random ones made from the descriptors, and chosen ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from memplan.v1 import job_pb2, layers_pb2
from memplan.v1 import planner_pb2 as pb

INT32 = (FieldDescriptor.CPPTYPE_INT32,)
WHOLE_32 = [0, 1, 2, -1, 3, 100, 2**31 - 1, -(2**31)]
WHOLE_64 = [*WHOLE_32, 2**24, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63)]
REAL = [0.0, 0.5, 1.0, -1.0, 1e300, 5e-324, math.nan, math.inf, -math.inf]
TEXT = [
    "",
    "torchvision/resnet18",
    "nvidia-t4",
    "transformers/../../etc/passwd",
    "/etc/passwd",
    "timm/hf-hub:someone/model",
    "__import__('os').system('true')",
    "trust_remote_code",
    "\0",
    "\u202e",
    "x" * 5_000,
    "masked-lm",
]
DEEPEST = 8


def values(field: FieldDescriptor, depth: int = 0) -> st.SearchStrategy[Any]:
    """Any value of a field, the nasty ones often."""
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values]
        return st.sampled_from([*known, 99, -1, 2**31 - 1])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.sampled_from(TEXT)
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.sampled_from(REAL)
    return st.sampled_from(WHOLE_32 if field.cpp_type in INT32 else WHOLE_64)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> Message:
    """Any message of a type."""
    message = GetMessageClass(descriptor)()
    if depth > DEEPEST:
        return message
    for field in draw(st.lists(st.sampled_from([*descriptor.fields] or [None]), max_size=6)):
        if field is not None:
            put(message, field, draw(values(field, depth)), draw(st.integers(1, 3)))
    return message


def put(message: Any, field: FieldDescriptor, value: Any, times: int = 1) -> None:
    """Set a field; of a list, add the value some times."""
    target = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            target[value.key].CopyFrom(value.value)
        else:
            target[value.key] = value.value
    elif field.is_repeated:
        target.extend([value] * times)
    elif field.message_type is not None:
        target.CopyFrom(value)
    else:
        setattr(message, field.name, value)


def parts(message: Message) -> Iterator[Message]:
    """A message and every message in it that is set."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for item in value if field.is_repeated else [value]:
            yield from parts(item)


@st.composite
def spoilt(draw: st.DrawFn, good: Message) -> Message:
    """A good request in which one or two fields have any value."""
    request = type(good)()
    request.CopyFrom(good)
    for _ in range(draw(st.integers(1, 2))):
        part = draw(st.sampled_from([p for p in parts(request) if p.DESCRIPTOR.fields]))
        field = draw(st.sampled_from([*part.DESCRIPTOR.fields]))
        put(part, field, draw(values(field, DEEPEST - 1)))
    return request


def estimate(batch_size: int = 2) -> Any:
    return pb.EstimateMemoryRequest(job=job_pb2.TrainingJob(micro_batch_size=batch_size))


def named(name: str, shape: tuple[int, ...] = (), **config: Any) -> Any:
    """An estimate of a catalog model."""
    request = estimate()
    request.job.model.catalog.name = name
    if shape:
        request.job.inputs.add(shape=shape)
    for key, value in config.items():
        request.job.model.catalog.config[key] = value
    return request


def stack(*layers: Any, shape: tuple[int, ...] = (8,), batch_size: int = 2) -> Any:
    """An estimate of a layer stack."""
    request = estimate(batch_size)
    request.job.inputs.add(shape=shape)
    request.job.model.layer_stack.layers.extend(layers)
    return request


def linear(features: int = 8, **layer: Any) -> Any:
    return layers_pb2.Layer(linear=layers_pb2.Linear(out_features=features), **layer)


def mlp(features: int = 16) -> Any:
    """A good job: a small perceptron."""
    relu = layers_pb2.Layer()
    relu.activation.SetInParent()
    return stack(linear(features), relu, linear(4))


def convnet() -> Any:
    """A good job: a small convolutional network."""
    convolution, pooling, flat = (layers_pb2.Layer() for _ in range(3))
    convolution.convolution.out_channels = 4
    convolution.convolution.kernel_size.append(3)
    pooling.pooling.kernel_size.append(2)
    flat.flatten.SetInParent()
    return stack(convolution, pooling, flat, linear(10), shape=(3, 8, 8))


def nested(depth: int) -> Any:
    layer = linear()
    for _ in range(depth):
        outer = layers_pb2.Layer()
        outer.residual.body.append(layer)
        layer = outer
    return layer


def deep_config(depth: int) -> Any:
    request = named("transformers/bert")
    value = request.job.model.catalog.config.fields["a"]
    for _ in range(depth):
        value = value.struct_value.fields["a"]
    value.number_value = 1
    return request


def nesting_bomb(depth: int) -> bytes:
    """Residual layers in one another, more than a parser goes along with."""
    data = b""
    for level in range(2 * depth + 1):
        tag = b"\x0a" if level % 2 else b"\x7a"  # Residual.body, Layer.residual
        data = tag + _varint(len(data)) + data
    for tag in (b"\x0a", b"\x12", b"\x0a", b"\x0a"):  # layers, layer_stack, model, job
        data = tag + _varint(len(data)) + data
    return data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def chosen() -> dict[str, bytes]:
    """Hand-written estimates by what is wrong with them."""
    huge = 2**31 - 1
    requests = {
        "empty": pb.EstimateMemoryRequest(),
        "no model": estimate(),
        "no source": pb.EstimateMemoryRequest(
            job=job_pb2.TrainingJob(model=job_pb2.Model(), micro_batch_size=1)
        ),
        "negative batch": stack(linear(), batch_size=-1),
        "2^62 batch": stack(linear(), batch_size=2**62),
        "largest batch": stack(linear(), batch_size=2**24),
        "2^62 features": stack(linear(2**62)),
        "negative features": stack(linear(-(2**63))),
        "huge features": stack(linear(huge)),
        "huge features twice": stack(linear(huge), linear(huge)),
        "huge features ten times": stack(*[linear(huge)] * 10),
        "huge input": stack(linear(), shape=(huge,)),
        "2^62 input": stack(linear(), shape=(2**62,)),
        "zero input": stack(linear(), shape=(0,)),
        "nine dimensions": stack(linear(), shape=(1,) * 9),
        "2^40 elements": stack(linear(1), shape=(2**20, 2**20)),
        "10,000 layers": stack(*[linear()] * 10_000),
        "10,000 repeats": stack(linear(repeat=10_000)),
        "2^31 repeats": stack(linear(repeat=huge)),
        "repeats of repeats": stack(*[linear(repeat=2_000)] * 3),
        "2,000 layers": stack(linear(2, repeat=2_000)),
        "nested 15 deep": stack(nested(15)),
        "nested 17 deep": stack(nested(17)),
        "nested 45 deep": stack(nested(45)),
        "empty layer": stack(layers_pb2.Layer()),
        "no layers": stack(),
        "unknown library": named("os/system"),
        "unknown model": named("torchvision/resnet51"),
        "path as a name": named("timm/../../../etc/passwd"),
        "hub name": named("timm/hf-hub:someone/model"),
        "url": named("https://example.com/model"),
        "private function": named("torchvision/_resnet"),
        "not a model": named("torchvision/get_model"),
        "control characters": named("timm/\x00\x1b[31m"),
        "long name": named("timm/" + "x" * 100_000),
        "wrong image": named("torchvision/resnet18", (224, 224, 3)),
        "scalar image": named("torchvision/resnet18", ()),
        "tiny image": named("torchvision/alexnet", (3, 1, 1)),
        "huge image": named("torchvision/resnet18", (3, 2**19, 2**19)),
        "no classes": named("torchvision/resnet18", num_classes=0),
        "negative classes": named("torchvision/resnet18", num_classes=-5),
        "half a class": named("torchvision/resnet18", num_classes=2.5),
        "text classes": named("torchvision/resnet18", num_classes="ten"),
        "NaN classes": named("torchvision/resnet18", num_classes=math.nan),
        "1e300 classes": named("torchvision/resnet18", num_classes=1e300),
        "2^53 classes": named("torchvision/resnet18", num_classes=2**53),
        "weights": named("torchvision/resnet18", weights="DEFAULT"),
        "pretrained": named("timm/resnet18", pretrained=True),
        "checkpoint": named("timm/resnet18", checkpoint_path="/etc/passwd"),
        "remote code": named("transformers/bert", trust_remote_code=True),
        "auto map": named("transformers/bert", auto_map={"AutoModel": "evil.Model"}),
        "a file as name_or_path": named("transformers/bert", _name_or_path="/etc/passwd"),
        "unknown option": named("transformers/bert", flux_capacitors=1),
        "no heads": named("transformers/bert", num_attention_heads=0),
        "odd heads": named("transformers/bert", num_attention_heads=7),
        "negative layers": named("transformers/bert", num_hidden_layers=-1),
        "a million layers": named("transformers/bert", num_hidden_layers=10**6, hidden_size=12),
        "huge vocabulary": named("transformers/bert", vocab_size=2**40),
        "text hidden size": named("transformers/bert", hidden_size="big"),
        "list hidden size": named("transformers/bert", hidden_size=[1, 2]),
        "null activation": named("transformers/bert", hidden_act=None),
        "unknown activation": named("transformers/bert", hidden_act="__import__"),
        "deep configuration": deep_config(12),
        "deeper configuration": deep_config(30),
    }
    data = {name: request.SerializeToString() for name, request in requests.items()}
    return data | {
        "no message": b"\xff" * 50,
        "cut off": mlp().SerializeToString()[:-3],
        "invalid UTF-8": b"\x12\x02\xff\xfe",
        "wrong wire types": b"\x0d\x00\x00\x00\x00\x10\x01",
        "endless varint": b"\x08" + b"\xff" * 20,
        "length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
        "groups": b"\x0b" * 200,
        "nesting bomb": nesting_bomb(3_000),
        "a million empty layers": _empty_layers(1_000_000),
        "a million shapes": _many_inputs(1_000_000),
    }


def _empty_layers(count: int) -> bytes:
    data = b"\x0a\x00" * count
    for tag in (b"\x12", b"\x0a", b"\x0a"):  # layer_stack, model, job
        data = tag + _varint(len(data)) + data
    return data


def _many_inputs(count: int) -> bytes:
    data = b"\x12\x00" * count
    return b"\x0a" + _varint(len(data)) + data
