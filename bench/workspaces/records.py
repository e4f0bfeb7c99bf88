"""What single convolutions were measured to take: `measured/nvidia-h200.csv.gz`.

    for record in records(): record.call.convolution, record.call.samples, record.taken_bytes

Calls of 40 models from torchvision and timm, each run alone as `running.operation` does, on an
NVIDIA H200 with torch 2.11.0 and cuDNN 9.19.0, `cudnn.benchmark` off, float32 in TF32. The second
of two runs counts: the allocator's peak less what is allocated after it, in blocks of 512 bytes.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memplan_server.timeline import Convolution
from workspaces.comparison import Call

__all__ = ["MEASURED", "Record", "records"]

MEASURED = Path(__file__).parent / "measured" / "nvidia-h200.csv.gz"

_ITEMSIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Record:
    """One call."""

    call: Call
    taken_bytes: int
    """Beside operands and result."""


def records(path: Path = MEASURED) -> list[Record]:
    """All lines of a file."""
    with gzip.open(path, "rt", newline="") as file:
        return [_record(line) for line in csv.DictReader(file)]


def _record(line: Mapping[str, str]) -> Record:
    convolution = Convolution(
        direction=line["direction"],
        dtype=line["dtype"],
        itemsize=_ITEMSIZES[line["dtype"]],
        channels_last=line["channels_last"] == "1",
        groups=int(line["groups"]),
        image=_numbers(line["image"]),
        kernel=_numbers(line["kernel"]),
        result=_numbers(line["result"]),
        stride=_numbers(line["stride"]),
        dilation=_numbers(line["dilation"]),
    )
    return Record(Call(convolution, int(line["samples"])), int(line["taken_bytes"]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))
