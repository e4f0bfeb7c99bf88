"""What LSTM, GRU and RNN allocate, in the order that was recorded on an H200."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import Workspaces, workspaces
from memplan_server.simulate import device, placing
from memplan_server.simulate.recorder import Recorder
from memplan_server.timeline import KERNEL, Phase

H200 = GpuCatalog.load().get("nvidia-h200")
STATES, INPUT, OUTPUT = 32 * 512 * 4 * 4, 32 * 128 * 256 * 4, 32 * 128 * 1024 * 4
FLAT, WORKSPACE, RESERVE = 37_814_272, 196_084_224, 184_549_632


def sizes(recorder: Recorder, events: list[int], on: Workspaces) -> list[int]:
    """Bytes of each allocation, and minus bytes of each free."""
    recording, found = recorder.recording, []
    kernels = list(recording.kernels)
    for event in events:
        storage = recording.storages[event if event >= 0 else ~event]
        nbytes, (of, _, index) = storage.nbytes, storage.workspace.partition("/")
        if of == KERNEL:
            nbytes = int(on.buffer_bytes(kernels[int(index)], np.array([nbytes]))[0])
        elif of:
            (size,) = on.of(storage.workspace, ())
            nbytes = size.fixed
        found.append(nbytes if event >= 0 else -nbytes)
    return found


def executed(layer: nn.Module, dtype: torch.dtype = torch.float32) -> list[list[int]]:
    """Events of placing it, of forward and of backward."""
    recorder = Recorder(device.register())
    parts, events = [], recorder.recording.events
    with recorder:
        placing.place(layer.to("meta", dtype), recorder, device.register())
        parts.append(events[:])
        x = torch.empty(32, 128, 256, dtype=dtype, device=device.register()).requires_grad_()
        start = len(events)
        output = layer(x)[0]
        parts.append(events[start:])
        upper = torch.empty_strided(
            output.shape, output.stride(), dtype=dtype, device=device.register()
        )
        recorder.enter(Phase.BACKWARD, 0)
        start = len(events)
        output.backward(upper)
        parts.append(events[start:])
        recorder.close()
    return [sizes(recorder, part, workspaces(H200)) for part in parts]


def lstm(**options: object) -> nn.LSTM:
    shape = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    return nn.LSTM(256, 512, **{**shape, **options})  # type: ignore[arg-type]


def test_lstm() -> None:
    placed, forward, backward = executed(lstm())
    assert placed[-17] == FLAT
    assert sum(placed) == FLAT
    assert forward[:10] == [
        *[STATES] * 2, INPUT, OUTPUT, *[STATES] * 2, WORKSPACE, RESERVE, -WORKSPACE, -INPUT
    ]  # fmt: skip
    data = [*[STATES] * 2, *[INPUT] * 2, *[STATES] * 2, WORKSPACE, -WORKSPACE, -INPUT]
    weights = [INPUT, FLAT, WORKSPACE, -WORKSPACE, -INPUT]
    assert backward[:14] == data + weights
    assert backward[14:18] == [-STATES] * 4
    assert -RESERVE in backward


def test_bfloat16_weights_are_copied_for_each_call() -> None:
    placed, forward, backward = executed(lstm(), torch.bfloat16)
    assert all(nbytes > 0 for nbytes in placed)
    assert forward[6:8] == [FLAT // 2, 114_819_584]
    assert -FLAT // 2 not in forward
    assert -FLAT // 2 in backward


def test_inference_keeps_no_reserve() -> None:
    recorder, layer = Recorder(device.register()), lstm().to("meta").eval()
    with recorder:
        placing.place(layer, recorder, device.register())
        with torch.no_grad():
            layer(torch.empty(32, 128, 256, device=device.register()))
        recorder.close()
    assert RESERVE not in [s.nbytes for s in recorder.recording.storages]


def test_dropout_keeps_random_states() -> None:
    _, forward, _ = executed(lstm(num_layers=3, dropout=0.1))
    assert forward[2] == 6_488_064
    assert forward[7:10] == [239_600_128, 287_310_080, -239_600_128]


@pytest.mark.parametrize(("kind", "kept"), [(nn.GRU, 50_331_904), (nn.RNN, 8_388_864)])
def test_one_state(kind: type[nn.RNNBase], kept: int) -> None:
    """Of a sequence that is time first, nothing is copied."""
    _, forward, backward = executed(kind(256, 512))
    state, output, last, workspace, reserve, freed = [n for n in forward if n][:6]
    assert (state, output, last) == (128 * 512 * 4, OUTPUT // 2, 128 * 512 * 4)
    assert (reserve, freed) == (kept, -workspace)
    assert backward[:2] == [state, INPUT]
    assert backward.count(workspace) == 2


def test_autocast_copies_weights_into_one_buffer() -> None:
    recorder, layer = Recorder(device.register()), lstm().to("meta")
    with recorder:
        placing.place(layer, recorder, device.register())
        start = len(recorder.recording.events)
        x = torch.empty(32, 128, 256, device=device.register())
        with torch.autocast(device.register().type, torch.float16):
            output = layer(x)[0]
        forward = recorder.recording.events[start:]
        output.backward(torch.empty_like(output))
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in layer.parameters())
        recorder.close()
    made = sizes(recorder, forward, workspaces(H200))
    assert made[3] == FLAT // 2
    assert made[11:14] == [114_819_584, 92_274_944, -114_819_584]
