"""What cuDNN takes for an LSTM, GRU or RNN, as measured on an H200 with cuDNN 9.19."""

from __future__ import annotations

import numpy as np
import pytest

from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import workspaces
from memplan_server.gpus.recurrent import Persistence, persistence, workspace
from memplan_server.simulate.recurrent import reserve_bytes
from memplan_server.timeline import Recurrent

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
H200 = workspaces(GpuCatalog.load().get("nvidia-h200"))
MEASURED = [
    (("lstm", "float32"), (1, 128, 256, 512), (2, 2, False), 75_202_848, 5_767_424),
    (("lstm", "float32"), (7, 128, 256, 512), (2, 2, False), 98_599_232, 40_370_432),
    (("lstm", "float32"), (32, 128, 256, 512), (2, 2, False), 196_084_224, 184_549_632),
    (("lstm", "float32"), (256, 128, 256, 512), (2, 2, False), 1_069_549_824, 1_476_395_264),
    (("lstm", "float32"), (32, 2, 256, 512), (2, 2, False), 76_415_488, 2_883_840),
    (("lstm", "float32"), (32, 512, 256, 512), (2, 2, False), 560_988_672, 738_197_760),
    (("lstm", "float32"), (32, 128, 1, 512), (2, 2, False), 187_728_384, 184_549_632),
    (("lstm", "float32"), (32, 128, 1024, 512), (2, 2, False), 255_066_624, 184_549_632),
    (("lstm", "float32"), (32, 128, 2048, 512), (2, 2, False), 372_507_136, 184_549_632),
    (("lstm", "float32"), (32, 128, 256, 64), (2, 2, False), 81_166_848, 23_068_928),
    (("lstm", "float32"), (32, 128, 256, 128), (2, 2, False), 104_661_504, 46_137_600),
    (("lstm", "float32"), (32, 128, 256, 200), (2, 2, False), 93_024_768, 72_089_856),
    (("lstm", "float32"), (32, 128, 256, 256), (2, 2, False), 108_528_128, 92_274_944),
    (("lstm", "float32"), (32, 128, 256, 1024), (2, 2, False), 421_528_064, 369_099_008),
    (("lstm", "float32"), (32, 128, 256, 2048), (2, 2, False), 1_073_742_336, 738_197_760),
    (("lstm", "float32"), (32, 128, 256, 512), (1, 1, False), 61_473_280, 41_943_296),
    (("lstm", "float32"), (32, 128, 256, 512), (2, 1, False), 78_905_856, 92_274_944),
    (("lstm", "float32"), (32, 128, 256, 512), (6, 1, False), 148_636_160, 293_601_536),
    (("lstm", "float32"), (32, 128, 256, 512), (1, 2, False), 152_568_320, 83_886_336),
    (("lstm", "float32"), (32, 128, 256, 512), (6, 2, False), 370_147_840, 587_202_816),
    (("lstm", "float32"), (32, 128, 256, 512), (3, 2, True), 239_600_128, 287_310_080),
    (("lstm", "float32"), (20, 35, 650, 650), (4, 1, True), 102_454_848, 42_030_944),
    (("lstm", "float32"), (32, 128, 512, 512), (1, 1, False), 67_830_272, 41_943_296),
    (("lstm", "float32"), (32, 128, 2048, 512), (1, 1, False), 155_910_656, 41_943_296),
    (("lstm", "float32"), (32, 128, 256, 64), (1, 1, False), 37_126_656, 5_243_136),
    (("lstm", "float32"), (32, 128, 256, 200), (1, 1, False), 32_543_232, 16_384_256),
    (("lstm", "float32"), (32, 128, 256, 1024), (1, 1, False), 118_751_744, 83_886_336),
    (("lstm", "float16"), (7, 128, 256, 512), (1, 1, False), 16_652_608, 4_587_776),
    (("lstm", "float16"), (8, 128, 256, 512), (1, 1, False), 34_144_576, 5_243_136),
    (("lstm", "float16"), (32, 128, 256, 512), (1, 1, False), 101_974_528, 20_971_776),
    (("lstm", "float16"), (33, 128, 256, 512), (1, 1, False), 35_662_368, 21_627_136),
    (("lstm", "float16"), (128, 128, 256, 512), (1, 1, False), 373_294_336, 83_886_336),
    (("lstm", "float16"), (256, 128, 256, 512), (1, 1, False), 198_707_456, 167_772_416),
    (("lstm", "float16"), (32, 128, 256, 128), (1, 1, False), 32_965_120, 5_243_136),
    (("lstm", "float16"), (32, 128, 256, 200), (1, 1, False), 20_466_176, 8_192_256),
    (("lstm", "float16"), (32, 128, 256, 1024), (1, 1, False), 197_657_088, 41_943_296),
    (("lstm", "float16"), (32, 128, 256, 2048), (1, 1, False), 133_431_808, 83_886_336),
    (("lstm", "float16"), (32, 128, 256, 512), (2, 2, False), 114_819_584, 92_274_944),
    (("lstm", "bfloat16"), (8, 128, 37, 100), (1, 1, False), 9_614_304, 1_024_256),
    (("lstm", "bfloat16"), (32, 128, 256, 512), (1, 1, False), 34_931_200, 20_971_776),
    (("gru", "float32"), (8, 128, 37, 100), (1, 1, False), 16_248_448, 2_457_856),
    (("gru", "float16"), (32, 128, 256, 512), (1, 1, False), 31_883_776, 25_166_080),
    (("gru", "float32"), (32, 128, 256, 512), (2, 2, False), 172_753_408, 218_104_064),
    (("gru", "bfloat16"), (32, 128, 256, 512), (3, 2, True), 129_827_328, 169_869_568),
    (("rnn", "float32"), (8, 128, 37, 100), (1, 1, False), 14_090_848, 409_856),
    (("rnn", "float16"), (32, 128, 256, 512), (1, 1, False), 68_092_416, 4_194_560),
    (("rnn", "float32"), (32, 128, 256, 512), (2, 2, False), 153_879_040, 50_331_904),
    (("rnn", "bfloat16"), (32, 128, 256, 512), (3, 2, True), 114_098_688, 44_040_448),
]
"""Cell and data type; samples, steps, inputs, hidden; layers, directions, dropout; workspace and
reserve."""
HIGH = [
    (("lstm", "float32"), (32, 512, 256, 512), (1, 1, False), 183_173_632, 0.05),
    (("gru", "float32"), (32, 128, 256, 512), (2, 1, False), 66_191_872, 0.024),
    (("rnn", "float32"), (32, 128, 256, 512), (2, 1, False), 56_230_400, 0.085),
]
"""What is not met, and by how much of workspace and reserve it is too high."""

Kind, Shape, Layers = tuple[str, str], tuple[int, int, int, int], tuple[int, int, bool]


def call(kind: Kind, shape: Shape, layers: Layers) -> Recurrent:
    (cell, dtype), (_, steps, inputs, hidden) = kind, shape
    count, directions, dropout = layers
    deeper = (count - 1) * (hidden * directions + hidden)
    return Recurrent(
        cell=cell,
        dtype=dtype,
        itemsize=4 if dtype == "float32" else 2,
        steps=steps,
        inputs=inputs,
        hidden=hidden,
        layers=count,
        directions=directions,
        weights=directions * GATES[cell] * hidden * (inputs + hidden + deeper),
        dropout=dropout,
        projected=False,
        forward=True,
    )


@pytest.mark.parametrize(("kind", "shape", "layers", "taken", "kept"), MEASURED)
def test_it_is_what_was_measured(
    kind: Kind, shape: Shape, layers: Layers, taken: int, kept: int
) -> None:
    made = call(kind, shape, layers)
    assert reserve_bytes(made, shape[0]) == pytest.approx(kept, abs=400)
    found = H200.buffer_bytes(made, np.array(shape[:1])).item()
    assert abs(found - taken) / (taken + kept) < 0.003


@pytest.mark.parametrize(("kind", "shape", "layers", "taken", "most"), HIGH)
def test_what_is_not_known_is_too_high(
    kind: Kind, shape: Shape, layers: Layers, taken: int, most: float
) -> None:
    made = call(kind, shape, layers)
    found = H200.buffer_bytes(made, np.array(shape[:1])).item()
    assert 0 < (found - taken) / (taken + reserve_bytes(made, shape[0])) < most


@pytest.mark.parametrize(
    ("capability", "multiprocessors", "rules"),
    [
        ((5, 2), 16, Persistence.NEVER),
        ((6, 0), 56, Persistence.SMALL),
        ((7, 0), 80, Persistence.VOLTA),
        ((7, 5), 40, Persistence.SMALL),
        ((8, 0), 108, Persistence.AMPERE),
        ((8, 0), 56, Persistence.SMALL),
        ((8, 6), 104, Persistence.SMALL),
        ((9, 0), 132, Persistence.AMPERE),
    ],
)
def test_persistent_kernels_are_for_some_gpus(
    capability: tuple[int, int], multiprocessors: int, rules: Persistence
) -> None:
    assert persistence(capability, multiprocessors) is rules


@pytest.mark.parametrize(
    ("cell", "hidden", "rules", "persistent"),
    [
        ("lstm", 512, Persistence.AMPERE, {8, 16, 80, 96, 128}),
        ("rnn", 1024, Persistence.AMPERE, {8, 16, 80}),
        ("lstm", 512, Persistence.VOLTA, {8, 16, 96, 128}),
        ("lstm", 512, Persistence.SMALL, set()),
        ("gru", 512, Persistence.AMPERE, set()),
    ],
)
def test_the_batch_decides_for_large_half_layers(
    cell: str, hidden: int, rules: Persistence, persistent: set[int]
) -> None:
    samples = np.array([7, 8, 16, 80, 96, 128, 136])
    made = call((cell, "float16"), (0, 128, 256, hidden), (1, 1, False))
    more = workspace(made, samples, rules) > workspace(made, samples, Persistence.NEVER)
    assert set(samples[more].tolist()) == persistent
