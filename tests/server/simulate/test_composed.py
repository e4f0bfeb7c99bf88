"""Operators that PyTorch composes of others make the same tensors on the way as they really do.

What really happens is seen on the CPU, where PyTorch executes the same compositions. A kernel of
the CPU's own may add a buffer of a few bytes, so peaks are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch._C._profiler import _EventType
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from memplan_server.simulate import device, temporaries
from memplan_server.simulate.recorder import Recorder

Function = Callable[..., torch.Tensor]

_ATEN = torch.ops.aten
_SMALL = 64
"""Bytes: constants such as -inf are made on the way, too."""

CALLS: dict[str, tuple[Function, tuple[tuple[int, ...], ...]]] = {
    "safe softmax": (lambda x: _ATEN._safe_softmax(x, -1), ((8, 64, 64),)),
    "attention": (_ATEN._scaled_dot_product_attention_math, ((2, 3, 4, 64, 16),) * 3),
    "logsumexp": (lambda x: x.logsumexp(-1), ((64, 512),)),
    "bilinear": (functional.bilinear, ((32, 16), (32, 24), (8, 16, 24))),
    "distance": (torch.dist, ((4096,), (4096,))),
    "isinf": (torch.isinf, ((4096,),)),
    "binary cross entropy": (functional.binary_cross_entropy_with_logits, ((64, 64),) * 2),
    "each binary cross entropy": (
        lambda x, y: functional.binary_cross_entropy_with_logits(x, y, y, reduction="none"),
        ((64, 64),) * 2,
    ),
    "soft margin": (functional.soft_margin_loss, ((64, 64),) * 2),
    "gradient of soft margin": (
        lambda g, x, y: _ATEN.soft_margin_loss_backward(g, x, y, 0),
        ((64, 64),) * 3,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_peak_on_the_way_is_that_of_the_real_operator(name: str) -> None:
    function, shapes = CALLS[name]
    assert simulated(function, shapes) == real(function, shapes)


@pytest.mark.parametrize("func", sorted(temporaries.COMPOSED, key=str), ids=str)
def test_pytorch_composes_them_and_has_no_kernel_of_cuda(func: Any) -> None:
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has(func.name(), temporaries.composite(func).name)
    assert not has(func.name(), "CPU")
    assert not has(func.name(), "CUDA")


def simulated(function: Function, shapes: Iterable[tuple[int, ...]]) -> int:
    recorder = Recorder(device.register())
    with recorder, torch.no_grad():
        arguments = [torch.empty(shape, device=device.register()) for shape in shapes]
        start = len(recorder.recording.events)
        function(*arguments)
        events = recorder.recording.events[start:]
    storages = recorder.recording.storages
    return peak(storages[e].nbytes if e >= 0 else -storages[~e].nbytes for e in events)


def real(function: Function, shapes: Iterable[tuple[int, ...]]) -> int:
    arguments = [torch.ones(shape) for shape in shapes]
    with (
        torch.no_grad(),
        profile(
            activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
        ) as profiled,
    ):
        function(*arguments)
    tree = profiled.profiler.kineto_results.experimental_event_tree()  # type: ignore[union-attr]
    found = [event for event in _all(tree) if event.tag == _EventType.Allocation]
    found.sort(key=lambda event: event.start_time_ns)
    return peak(event.extra_fields.alloc_size for event in found)


def peak(changes: Iterable[int]) -> int:
    """Most bytes held at once, of those that count."""
    return max(accumulate(change for change in changes if abs(change) > _SMALL))


def _all(events: Iterable[Any]) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _all(event.children)
