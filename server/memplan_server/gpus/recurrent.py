"""Bytes of the workspace that cuDNN takes for an LSTM, GRU or RNN.

cuDNN does not publish them. The counts below were found from 143 calls measured on an H200 with
cuDNN 9.19 and PyTorch 2.11 (some in `tests/server/gpus/test_recurrent_workspace.py`): batches of 1
to 256, 1 to 512 time steps, 1 to 2048 inputs, 64 to 2048 hidden, 1 to 6 layers. What they are made
of is a reading of the numbers, not cuDNN's word:

- one copy of the weight matrices;
- 8 MiB for each layer and direction, whatever its size and data type;
- for each time step and sample, so many vectors of hidden size and of input size: the larger of
  two counts, of which one grows faster with the input;
- for each sample, so many states;
- persistent kernels have more vectors for each time step.

Of workspace and reserve together, 93 of 94 calls of an LSTM are met within 0.3 %; the other one,
512 time steps of a single layer, is 5 % too high. Of GRU and RNN, 16 of 25 and 15 of 24 are met
within 0.3 %; those with several layers in one direction are 1 to 8 % too high. Not measured, and
taken for as much as what was: inference, projections, other GPUs and versions of cuDNN.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from memplan_server.timeline import Int64, Recurrent

__all__ = ["Persistence", "persistence", "workspace"]

_FOR_EACH_LAYER = 8 << 20
_ALIGNMENT = 512
_SMALL = {"lstm": (192, 128), "gru": (192, 128), "rnn": (384, 256)}
"""The most hidden that are few to forward, and to backward."""
_MULTIPROCESSORS = 98
"""A30 and less have fewer, and no persistent kernels for one large layer."""


class Persistence(Enum):
    """By which of PyTorch's rules a GPU gets persistent kernels: they keep weights in registers."""

    NEVER = "never"
    SMALL = "small"
    VOLTA = "volta"
    AMPERE = "ampere"


@dataclass(frozen=True, slots=True)
class _Count:
    """Vectors of hidden size and of input size for each time step, and states for each layer."""

    hidden: int
    inputs: int
    states: int
    more_states: int = 0
    """Whatever the number of layers."""

    def elements(self, call: Recurrent) -> int:
        """For each sample."""
        steps = call.steps * (self.hidden * call.hidden + self.inputs * call.inputs)
        return steps + (self.states * call.layers + self.more_states) * call.hidden


_LSTM = (
    (_Count(5, 1, 10), _Count(3, 3, 10, 1)),
    (_Count(14, 1, 24), _Count(8, 6, 24, 4)),
)
_GATED = (
    (_Count(4, 2, 5), _Count(3, 3, 5, 1)),
    (_Count(12, 2, 14), _Count(8, 6, 14, 4)),
)
_COUNTS = {"lstm": _LSTM, "gru": _GATED, "rnn": _GATED}
"""By directions, 1 and 2: both counts. Of GRU and RNN, the second was measured nowhere: it is the
LSTM's, which is as large as the first where inputs and hidden are equal."""

_PERSISTENT = {
    "lstm": (_Count(16, 0, 0, -2), _Count(12, 0, 0, 1)),
    "gru": (_Count(14, 0, 0, 1), _Count(14, 0, 0, 1)),
    "rnn": (_Count(9, 0, 0, 1), _Count(9, 0, 0, 1)),
}
"""What persistent kernels have more, in one direction; in both, of an LSTM, without the states."""


def persistence(compute_capability: tuple[int, int], multiprocessors: int) -> Persistence:
    """Which rules hold on a GPU. Source: `use_persist_device_heuristics` and
    `use_rnn_persist_small_h` in aten/src/ATen/native/cudnn/RNN.cpp."""
    major, minor = compute_capability
    if major < 6:
        return Persistence.NEVER
    if compute_capability != (7, 5) and major == 7:
        return Persistence.VOLTA
    if major >= 8 and multiprocessors >= _MULTIPROCESSORS and minor != 6:
        return Persistence.AMPERE
    return Persistence.SMALL


def workspace(call: Recurrent, samples: Int64, on: Persistence) -> Int64:
    """[n] bytes for [n] numbers of samples; of training, also where there is no backward."""
    weights = call.weights * call.itemsize + _FOR_EACH_LAYER * call.layers * call.directions
    plain, persistent = (call.itemsize * _elements(call, more) for more in (False, True))
    each = np.where(_persistent(call, samples, on), persistent, plain)
    return weights + each * samples + _ALIGNMENT


def _elements(call: Recurrent, persistent: bool) -> int:
    """For each sample."""
    both = call.directions == 2
    counts = _COUNTS[call.cell][both]
    elements = [count.elements(call) for count in counts]
    if persistent:
        for at, more in enumerate(_PERSISTENT[call.cell]):
            states = 0 if both else more.more_states
            elements[at] += (more.hidden * call.steps + states) * call.hidden
    return max(elements) + call.steps * call.hidden * (call.dropout and not both)


def _persistent(call: Recurrent, samples: Int64, on: Persistence) -> npt.NDArray[np.bool_]:
    """[n] whether cuDNN is told to use persistent kernels, and does.

    Source: `get_algo` in aten/src/ATen/native/cudnn/RNN.cpp. Measured: for bfloat16, cuDNN takes no
    more than without them.
    """
    never = np.zeros(np.shape(samples), bool)
    if on is Persistence.NEVER or call.projected or call.dtype not in ("float32", "float16"):
        return never
    small = _SMALL[call.cell][0 if call.forward else 1]
    if call.hidden <= small:
        return ~never
    aligned = call.hidden % 128 == 0 and call.inputs % 128 == 0 and call.hidden <= 1024
    if call.dtype != "float16" or not aligned or call.layers * call.directions > 1:
        return never
    if on is Persistence.VOLTA:
        return _on_volta(call, samples)
    if on is not Persistence.AMPERE or call.cell == "gru":
        return never
    most = 95 if call.cell == "rnn" and call.hidden >= 896 else 128
    fits: npt.NDArray[np.bool_] = np.logical_and(samples % 8 == 0, samples <= most)
    return fits


def _on_volta(call: Recurrent, samples: Int64) -> npt.NDArray[np.bool_]:
    usual = (samples % 16 == 0) & (samples != 80) & (samples != 112)
    most = 128 if call.steps >= 40 else 96 if call.steps >= 20 else 32 if call.steps >= 10 else 0
    fits: npt.NDArray[np.bool_] = np.logical_and(usual | (samples == 8), samples <= most)
    return fits
