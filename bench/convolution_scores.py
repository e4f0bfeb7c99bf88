"""How far the rules for workspaces of convolutions are from what was measured, call by call.

    python bench/convolution_scores.py [--gpu nvidia-h200] [--by kind] [--worst 20] [--half odd]
    python bench/convolution_scores.py --cudnn FOLDER

`--gpu` says whose rules; those of nvidia-a100-80gb are what every other GPU has. `--cudnn` scores
the first choice of the cuDNN in that folder for the GPU (docs/convolutions.md) in place of rules.
The error is the sum of all differences as a share of all operands, results and workspaces; beside
it the part of it that is too little. A call is right within a MiB or 2 %. `--half` takes every
other convolution, by a hash of its shape, whatever its samples, number format and direction.
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from memplan.types import GpuType
from memplan_server.errors import MemplanError
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import workspaces
from memplan_server.timeline import Convolution
from reporting.markdown import mib, table
from workspaces.backend import Library
from workspaces.comparison import Call, ours_bytes
from workspaces.devices import properties
from workspaces.heuristics import Heuristics
from workspaces.records import Record, records
from workspaces.text import describe

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Scored:
    """A call with what the rules say."""

    record: Record
    said: int

    @property
    def difference(self) -> int:
        """Above 0 where the rules say too much."""
        return self.said - self.record.taken_bytes

    @property
    def right(self) -> bool:
        """Within a MiB or 2 %."""
        return abs(self.difference) <= max(MIB, self.record.taken_bytes // 50)

    @property
    def needed(self) -> int:
        """Bytes of operands, result and workspace."""
        call = self.record.call
        convolution = call.convolution
        each = math.prod(convolution.image) + math.prod(convolution.result)
        elements = call.samples * each + math.prod(convolution.kernel)
        return elements * convolution.itemsize + self.record.taken_bytes


def kind(convolution: Convolution) -> str:
    """What the rules tell apart first."""
    if convolution.groups > 1:
        return "depthwise" if convolution.groups == convolution.image[0] else "grouped"
    if math.prod(convolution.kernel[2:]) > 1:
        return "dense"
    return "1x1" if set(convolution.stride) == {1} else "1x1 strided"


def layout(convolution: Convolution) -> str:
    """Of all its tensors."""
    return "channels-last" if convolution.channels_last else "contiguous"


_BY: Mapping[str, Callable[[Record], str]] = {
    "all": lambda record: "all",
    "dtype": lambda record: record.call.convolution.dtype,
    "layout": lambda record: layout(record.call.convolution),
    "direction": lambda record: record.call.convolution.direction,
    "kind": lambda record: kind(record.call.convolution),
    "samples": lambda record: str(record.call.samples),
}


def main(arguments: Sequence[str]) -> int:
    """Print a table, and the calls that are furthest off; 2 for a GPU or cuDNN it cannot use."""
    options = _parser().parse_args(arguments)
    chosen = [record for record in records() if options.half in ("", _half(record))]
    try:
        said = _said(GpuCatalog.load().get(options.gpu), options.cudnn)
        scored = [Scored(record, said(record.call)) for record in chosen]
    except MemplanError as error:
        print(f"convolution_scores.py: {error}", file=sys.stderr)
        return 2
    print(scores(scored, options.by))
    scored.sort(key=lambda s: -abs(s.difference))
    for s in scored[: options.worst]:
        call, taken = s.record.call, mib(s.record.taken_bytes)
        name = describe(call.convolution)
        print(f"{name}, {call.samples} samples: {mib(s.said)} for {taken} MiB")
    return 0


def scores(scored: Sequence[Scored], by: Sequence[str]) -> str:
    """A line for each group."""
    groups: dict[tuple[str, ...], list[Scored]] = defaultdict(list)
    for s in scored:
        groups[tuple(_BY[name](s.record) for name in by)].append(s)
    header = [*by, "calls", "taken GiB", "error", "too little", "right"]
    return table(header, [[*names, *_cells(groups[names])] for names in sorted(groups)])


def _cells(group: Sequence[Scored]) -> list[str]:
    needed = sum(s.needed for s in group)
    taken = sum(s.record.taken_bytes for s in group)
    return [
        f"{len(group):,}",
        f"{taken / 2**30:.1f}",
        f"{sum(abs(s.difference) for s in group) / needed:.1%}",
        f"{sum(max(0, -s.difference) for s in group) / needed:.1%}",
        f"{sum(s.right for s in group) / len(group):.0%}",
    ]


def _said(gpu_type: GpuType, cudnn: Path | None) -> Callable[[Call], int]:
    """Bytes of a call, by our rules or by cuDNN's first choice."""
    if cudnn is None:
        rules = workspaces(gpu_type)
        return lambda call: ours_bytes(call, rules)
    heuristics = Heuristics(Library.load(cudnn), properties(gpu_type))
    return lambda c: heuristics.choices(c.convolution, c.samples)[0].workspace_bytes


def _groups(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in _BY]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_BY)}")
    return names


def _half(record: Record) -> str:
    c = record.call.convolution
    shape = repr((c.image, c.kernel, c.result, c.stride, c.dilation))
    return ("even", "odd")[zlib.crc32(shape.encode()) % 2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpu", default="nvidia-h200", metavar="TYPE")
    parser.add_argument(
        "--by", type=_groups, default="all", metavar="NAMES", help=f"of {', '.join(_BY)}"
    )
    parser.add_argument("--worst", type=int, default=0, metavar="COUNT")
    parser.add_argument("--cudnn", type=Path, metavar="FOLDER")
    parser.add_argument("--half", choices=("odd", "even"), default="")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
