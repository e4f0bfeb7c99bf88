"""Convolutions: shapes are PyTorch's, layouts and copies are cuDNN's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from memplan_server.simulate import device
from memplan_server.simulate.recorder import Recorder, Recording

LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


def tensor(*shape: int, layout: torch.memory_format = CONTIGUOUS) -> torch.Tensor:
    return torch.empty(shape, device=device.register(), memory_format=layout).requires_grad_()


def backward(result: torch.Tensor, *of: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(result, of, torch.empty_like(result))


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
    bias=st.booleans(),
)
def test_shapes_are_pytorchs(transposed: bool, bias: bool, **given_shape: Any) -> None:
    batch, groups, size = (given_shape.pop(name) for name in ("batch", "groups", "size"))
    kernel = given_shape.pop("kernel")
    weight = (4, 8 // groups) if transposed else (8, 4 // groups)
    function = functional.conv_transpose2d if transposed else functional.conv2d
    shapes = []
    for where in ("meta", device.register()):
        with Recorder(device.register()):
            x = torch.empty(batch, 4, *size, device=where, requires_grad=True)
            w = torch.empty(*weight, kernel, kernel, device=where, requires_grad=True)
            b = torch.empty(8, device=where, requires_grad=True) if bias else None
            result = function(x, w, b, groups=groups, **given_shape)
            gradients = backward(result, *([x, w] if b is None else [x, w, b]))
        shapes.append([tuple(t.shape) for t in (result, *gradients)])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 4, 1, 1)])
def test_what_does_not_go_together_is_refused_as_pytorch_refuses_it(shape: tuple[int, ...]) -> None:
    with Recorder(device.register()), pytest.raises(RuntimeError):
        functional.conv2d(tensor(*shape), tensor(8, 4, 3, 3))


@pytest.mark.parametrize(
    ("image", "weight", "layout", "copies"),
    [
        (CONTIGUOUS, CONTIGUOUS, CONTIGUOUS, 0),
        (LAST, LAST, LAST, 0),
        (LAST, CONTIGUOUS, LAST, 1),  # of the weight
        (CONTIGUOUS, LAST, LAST, 1),  # of the image
    ],
)
def test_the_layout_follows_image_and_weight(
    image: torch.memory_format,
    weight: torch.memory_format,
    layout: torch.memory_format,
    copies: int,
) -> None:
    recorder = Recorder(device.register())
    with recorder:
        x, w = tensor(2, 8, 6, 6, layout=image), tensor(16, 8, 3, 3, layout=weight)
        before = len(recorder.recording.storages)
        result = functional.conv2d(x, w)
        made = of_tensors(recorder.recording, before)
        gradients = backward(result, x, w)
    assert made == 1 + copies
    assert all(t.is_contiguous(memory_format=layout) for t in (result, *gradients))


def of_tensors(recording: Recording, start: int) -> int:
    return sum(not s.workspace for s in recording.storages[start:])


def test_cudnn_is_told_the_calls_and_gives_its_workspaces_back() -> None:
    recorder = Recorder(device.register())
    with recorder:
        x, w = tensor(2, 8, 6, 6), tensor(16, 8, 3, 3)
        backward(functional.conv2d(x, w, stride=2), x, w)
    calls = list(recorder.recording.convolutions)
    assert [c.direction for c in calls] == ["fprop", "dgrad", "wgrad"]
    assert {(c.image, c.kernel, c.result) for c in calls} == {
        ((8, 6, 6), (16, 8, 3, 3), (16, 2, 2))
    }
    for index, storage in enumerate(recorder.recording.storages):
        if storage.workspace.startswith("cudnn/"):
            assert storage.nbytes == 2  # samples
            assert recorder.recording.events.count(~index) == 1


def test_contiguous_depthwise_convolutions_are_pytorchs_own() -> None:
    for layout, calls in ((CONTIGUOUS, 0), (LAST, 3)):
        recorder = Recorder(device.register())
        with recorder:
            x, w = tensor(2, 8, 6, 6, layout=layout), tensor(8, 1, 3, 3, layout=layout)
            backward(functional.conv2d(x, w, groups=8), x, w)
        assert len(recorder.recording.convolutions) == calls
