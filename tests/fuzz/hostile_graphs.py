"""Captured graphs that nobody means well with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.v1 import job_pb2
from memplan.v1 import planner_pb2 as pb

HUGE = 2**63 - 1


def argument(value: Any) -> Any:
    """One argument: `("v", 3)` is value 3, the rest what it looks like."""
    made = job_pb2.GraphArgument()
    if isinstance(value, tuple):
        kind, given = value
        if kind == "v":
            made.value = given
        elif kind == "dtype":
            made.dtype = given
        elif kind == "size":
            made.size.CopyFrom(job_pb2.GraphSize(**given))
        else:
            made.CopyFrom(argument(given))
            made.name = kind
    elif isinstance(value, list):
        made.list.SetInParent()
        made.list.items.extend(argument(item) for item in value)
    elif isinstance(value, bool):
        made.truth = value
    elif isinstance(value, int):
        made.integer = value
    elif isinstance(value, float):
        made.number = value
    elif isinstance(value, str):
        made.text = value
    return made


def v(number: int) -> tuple[str, int]:
    return ("v", number)


def perceptron(*more: tuple[Any, ...], loss: int | None = None) -> Any:
    """An estimate of x [B, 8] -> linear -> sum, with further nodes (operator, *arguments) in it.

    Values: 0 weight, 1 bias, 2 an index buffer, 3 the input, 4 the linear result, then `more`; the
    last is summed to be the loss.
    """
    graph = job_pb2.Graph(name="Perceptron", modules=[job_pb2.GraphModule(type="Perceptron")])
    graph.tensors.add(name="weight", shape=[8, 8])
    graph.tensors.add(name="bias", shape=[8])
    buffer = job_pb2.GRAPH_TENSOR_KIND_BUFFER
    graph.tensors.add(name="index", shape=[8], kind=buffer, dtype=job_pb2.DATA_TYPE_INT64)
    graph.inputs.add(name="x", shape=[job_pb2.GraphSize(per_sample=1), job_pb2.GraphSize(fixed=8)])
    for operator, *arguments in (("aten.linear.default", v(3), v(0), v(1)), *more):
        node(graph, operator, *arguments)
    node(graph, "aten.sum.default", v(len(graph.nodes) + 3))
    graph.loss = len(graph.nodes) + 3 if loss is None else loss
    return estimate(graph)


def node(graph: Any, operator: str, *arguments: Any) -> None:
    """Add a node."""
    if operator not in graph.operators:
        graph.operators.append(operator)
    index = list(graph.operators).index(operator)
    graph.nodes.add(operator=index, arguments=[argument(a) for a in arguments])


def estimate(graph: Any) -> Any:
    """An estimate of a graph."""
    request = pb.EstimateMemoryRequest(job=job_pb2.TrainingJob(micro_batch_size=2))
    request.job.model.graph.CopyFrom(graph)
    return request


def changed(change: Callable[[Any], Any], *more: tuple[Any, ...]) -> Any:
    """The perceptron after a change of its graph."""
    request = perceptron(*more)
    change(request.job.model.graph)
    return request


GOOD = {
    "a graph": perceptron(),
    "a graph with an activation": perceptron(("aten.relu_.default", v(4))),
    "a number for a tensor": perceptron(("aten.add.Tensor", v(4), 2**62)),
    "a huge slice": perceptron(("aten.slice.Tensor", v(4), 0, 0, HUGE, 1)),
    "a division by zero": perceptron(("aten.div.Tensor", v(4), 0)),
    "nothing but NaN": perceptron(("aten.mul.Tensor", v(4), float("nan"))),
    "2,000 nodes": perceptron(*(("aten.relu.default", v(4)),) * 2_000),
}
"""Those that get an answer."""

_OPERATORS = (
    "aten.no_such_operator.default",
    "aten.relu.no_such_overload",
    "aten.relu",
    "aten",
    "",
    "relu",
    "os.system.default",
    "aten.__class__.default",
    "aten.linear.__globals__",
    "aten.from_file.default",
    "aten.set_.source_Tensor",
    "aten.set_.source_Storage",
    "aten.resize_.default",
    "aten.resize_as_.default",
    "aten.set_data.default",
    "aten.record_stream.default",
    "aten.pin_memory.default",
    "aten.item.default",
    "aten._local_scalar_dense.default",
    "aten._unsafe_index.Tensor",
    "aten._index_put_impl_.default",
    "aten._foobar.default",
    "aten._print.default",
    "aten._cufft_clear_plan_cache.default",
    "aten.backward.default",
    "aten._backward.default",
    "aten.sparse_coo_tensor.indices",
    "aten.to_sparse.default",
    "aten.quantize_per_tensor.default",
    "aten.mkldnn_linear.default",
    "prims.add.default",
    "torchvision.nms.default",
    "inductor.resize_storage_bytes_.default",
    "higher_order.cond.default",
    "aten." + "x" * 10_000 + ".default",
    "aten.relu.default\0",
)


def _refused() -> dict[str, Any]:
    """By what is wrong with them; all but a few are INVALID_ARGUMENT."""
    x = v(4)
    relu = "aten.relu.default"
    requests = {f"operator {name[:60]!r}": perceptron((name, x)) for name in _OPERATORS}
    return requests | {
        "a value that comes later": perceptron((relu, v(6))),
        "a value that is its own result": perceptron((relu, v(5))),
        "a negative value": perceptron((relu, v(-1))),
        "a value of 2^31 - 1": perceptron((relu, v(2**31 - 1))),
        "a value in a list that comes later": perceptron(("aten.cat.default", [x, v(9)])),
        "a loss that comes later": perceptron(loss=99),
        "a loss of several elements": perceptron(loss=4),
        "a loss that nothing depends on": perceptron(loss=2),
        "too few arguments": perceptron(("aten.linear.default", x)),
        "too many arguments": perceptron((relu, x, x, x)),
        "65 arguments": perceptron((relu, *[x] * 65)),
        "an unknown name": perceptron((relu, x, ("inplace", True))),
        "a name given twice": perceptron(("aten.sum.dim_IntList", x, [0], ("dim", [1]))),
        "text for a tensor": perceptron((relu, "x")),
        "a list for a tensor": perceptron((relu, [x])),
        "a tensor for a truth value": perceptron(("aten.dropout.default", x, 0.5, v(0))),
        "text for a number": perceptron(("aten.dropout.default", x, "0.5", True)),
        "a number for a list": perceptron(("aten.view.default", x, 2.5)),
        "numbers for tensors": perceptron(("aten.cat.default", [1, 2])),
        "a list in a list": perceptron(("aten.cat.default", [[x]])),
        "lists 40 deep": perceptron((relu, _deep(40))),
        "a list of 5,000": perceptron(("aten.cat.default", [x] * 5_000)),
        "a wrong shape": perceptron(("aten.view.default", x, [3, -1])),
        "a huge shape": perceptron(("aten.view.default", x, [HUGE, HUGE])),
        "a huge factory": perceptron(("aten.zeros.default", [HUGE, HUGE])),
        "a negative factory": perceptron(("aten.zeros.default", [-(2**62)])),
        "a huge expansion": perceptron(("aten.expand.default", v(1), [2**40, 2**40, 8])),
        "huge repeats": perceptron(("aten.repeat.default", x, [2**40, 2**40])),
        "a huge padding": perceptron(("aten.constant_pad_nd.default", x, [HUGE, HUGE])),
        "2^40 pieces": perceptron(("aten.zeros.default", [2**40]), ("aten.split.Tensor", v(5), 1)),
        "2^40 slices": perceptron(("aten.zeros.default", [2**40]), ("aten.unbind.int", v(5))),
        "2^40 chunks": perceptron(
            ("aten.zeros.default", [2**40]), ("aten.chunk.default", v(5), 2**40)
        ),
        "strides beyond the storage": perceptron(
            ("aten.as_strided.default", x, [8, 8], [2**40, 2**40])
        ),
        "a negative stride": perceptron(("aten.as_strided.default", x, [2, 2], [-1, 1])),
        "indices that are no indices": perceptron(("aten.embedding.default", v(0), x)),
        "integers that need gradients": perceptron(("aten.requires_grad_.default", v(2))),
        "a product of unlike types": perceptron(("aten.mm.default", x, v(2))),
        "complex convolution": perceptron(
            ("aten.to.dtype", x, ("dtype", 11)), ("aten.conv2d.default", v(5), v(0))
        ),
        "an unknown dtype": perceptron(("aten.to.dtype", x, ("dtype", 99))),
        "a memory format that is none": perceptron(
            ("aten.contiguous.default", x, ("memory_format", "sideways"))
        ),
        "an einsum that is none": perceptron(("aten.einsum.default", "ij->ijk" * 20, [x])),
        "a padding mode that is none": perceptron(("aten.pad.default", x, [1, 1], "sideways")),
        "a parameter overwritten": perceptron(("aten.relu_.default", v(0))),
        "a value that was let go of": changed(
            lambda g: g.nodes[0].releases.append(3), (relu, x), (relu, v(3)), (relu, v(4))
        ),
        "a device": perceptron(("aten.to.device", x, ("device", "cuda:7"))),
        "a million nodes": changed(lambda g: g.nodes.extend([job_pb2.GraphNode()] * 10**6)),
        "60,000 nodes": perceptron(*((relu, x),) * 60_000),
        **_wrong_parts(),
    }


def _deep(depth: int) -> Any:
    return [_deep(depth - 1)] if depth else []


def _entered_twice(graph: Any) -> None:
    graph.contexts.add(checkpoint=1)
    graph.nodes[0].context = 1
    graph.nodes.add().CopyFrom(graph.nodes[-1])
    graph.nodes[-1].context = 1


def _wrong_parts() -> dict[str, Any]:
    """Changes of a part of the graph besides its nodes' arguments."""
    one = job_pb2.GraphSize(fixed=1)
    changes: dict[str, Callable[[Any], Any]] = {
        "no nodes": lambda g: g.ClearField("nodes"),
        "no inputs": lambda g: g.ClearField("inputs"),
        "no modules": lambda g: g.ClearField("modules"),
        "neither outputs nor a loss": lambda g: g.ClearField("loss"),
        "a loss below 0": lambda g: setattr(g, "loss", -1),
        "an operator that is not there": lambda g: setattr(g.nodes[0], "operator", 77),
        "a module that is not there": lambda g: setattr(g.nodes[0], "module", -5),
        "a context that is not there": lambda g: setattr(g.nodes[0], "context", 1),
        "results that are not there": lambda g: setattr(g.nodes[0], "result_count", 2),
        "2^31 results": lambda g: setattr(g.nodes[0], "result_count", 2**31 - 1),
        "negative results": lambda g: setattr(g.nodes[0], "result_count", -1),
        "a release of what comes later": lambda g: g.nodes[0].releases.append(99),
        "an output that is not there": lambda g: g.outputs.add(value=99),
        "a huge parameter": lambda g: g.tensors.add(name="a", shape=[2**40, 2**40]),
        "a negative parameter": lambda g: g.tensors.add(name="a", shape=[-1]),
        "a parameter of 20 dimensions": lambda g: g.tensors.add(name="a", shape=[1] * 20),
        "strides without sizes": lambda g: g.tensors.add(name="a", strides=[1]),
        "huge strides": lambda g: g.tensors.add(name="a", shape=[9], strides=[HUGE]),
        "a parameter without a name": lambda g: g.tensors.add(shape=[1]),
        "a parameter called forward": lambda g: g.tensors.add(name="forward", shape=[1]),
        "a parameter called __class__": lambda g: g.tensors.add(name="__class__", shape=[1]),
        "a parameter called _parameters": lambda g: g.tensors.add(name="_parameters", shape=[1]),
        "a number called forward": lambda g: g.tensors.add(
            name="forward", kind=job_pb2.GRAPH_TENSOR_KIND_CONSTANT
        ),
        "a path for a name": lambda g: g.tensors.add(name="../../etc/passwd", shape=[1]),
        "a name given to two": lambda g: g.tensors.add(name="weight", shape=[1]),
        "a parameter of integers": lambda g: g.tensors.add(name="a", dtype=4, shape=[1]),
        "a group that is not there": lambda g: setattr(g.tensors[0], "optimizer_group", 3),
        "a module without a path": lambda g: g.modules.add(),
        "a module with half a path": lambda g: g.modules.add(path="a..b"),
        "a module called forward": lambda g: g.modules.add(path="forward"),
        "a module 5,000 deep": lambda g: g.modules.add(path=".".join("a" * 5_000)),
        "a module 500 deep": lambda g: g.modules.add(path=".".join("a" * 500)),
        "an input without sizes": lambda g: g.inputs[0].ClearField("shape"),
        "a negative input": lambda g: setattr(g.inputs[0].shape[0], "fixed", -(2**40)),
        "an input of 2^40 a sample": lambda g: setattr(g.inputs[0].shape[0], "per_sample", 2**40),
        "a divisor below 0": lambda g: setattr(g.inputs[0].shape[0], "divisor", -1),
        "100 inputs": lambda g: [g.inputs.add(shape=[one]) for _ in range(100)],
        "a checkpoint below 0": lambda g: g.contexts.add(checkpoint=-1),
        "a checkpoint that is entered twice": _entered_twice,
        "autocast to integers": lambda g: g.contexts.add(autocast=True, autocast_dtype=4),
        "a long assumption": lambda g: g.assumptions.append("x" * 10_000),
        "control characters": lambda g: g.assumptions.append("\x1b[31m"),
        "another batch size": lambda g: setattr(g, "fixed_batch_size", 7),
        "a negative batch size": lambda g: setattr(g, "fixed_batch_size", -7),
    }
    return {f"graph: {name}": changed(change) for name, change in changes.items()}


def chosen_graphs() -> dict[str, bytes]:
    """Hand-written estimates of graphs by what is wrong with them."""
    requests = GOOD | _refused()
    return {name: request.SerializeToString() for name, request in requests.items()}
