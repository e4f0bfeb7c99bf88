"""Public tables of measured memory, as jobs: `bench/accuracy.py` reads them from a folder.

    milabench_dev.csv                   H100 and L40S; gpu,bench,batch_size,driver_used_mib
    timm_a100_fp32_dev.csv              A100 40 GB; model,batch_size,driver_used_mib,
                                        fake_tensor_peak_mib
    timm_rtx3090_amp_brackets_dev.csv   RTX 3090; layout,model,img_size,fits_batch_size,
                                        next_larger_that_failed

Files that are not there are left out. Driver-used is what nvidia-smi shows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from memplan.types import (
    CatalogModel,
    DataType,
    InputTensor,
    MemoryFormat,
    Model,
    Optimizer,
    OptimizerType,
    Precision,
    TrainingJob,
    TrainingLoop,
    ZeroGrad,
)
from memplan_server.jobs import normalize

__all__ = ["Bracket", "Row", "brackets", "rows"]

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement."""

    table: str
    group: str
    gpu_type: str
    job: TrainingJob
    driver_used_bytes: int
    fake_tensor_bytes: int | None = None
    """PyTorch's fake-tensor peak, where the table has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bracket:
    """A batch size that fits and the next larger one tried, which did not."""

    group: str
    gpu_type: str
    job: TrainingJob
    fits_batch_size: int
    failed_batch_size: int | None


def rows(folder: Path) -> Iterator[Row]:
    """Every measurement of the tables in `folder`."""
    for record in _records(folder / "milabench_dev.csv"):
        yield Row(
            table="milabench",
            group=record["bench"],
            gpu_type={"H100": "nvidia-h100-80gb", "L40S": "nvidia-l40s"}[record["gpu"]],
            job=_milabench(record["bench"], int(record["batch_size"])),
            driver_used_bytes=int(float(record["driver_used_mib"]) * MIB),
        )
    for record in _records(folder / "timm_a100_fp32_dev.csv"):
        yield Row(
            table="timm-a100",
            group=record["model"],
            gpu_type="nvidia-a100-40gb",
            job=_timm(record["model"], int(record["batch_size"])),
            driver_used_bytes=int(float(record["driver_used_mib"]) * MIB),
            fake_tensor_bytes=int(float(record["fake_tensor_peak_mib"]) * MIB),
        )


def brackets(folder: Path) -> Iterator[Bracket]:
    """Every pair of batch sizes in `folder`: AMP float16, SGD with momentum."""
    for record in _records(folder / "timm_rtx3090_amp_brackets_dev.csv"):
        size = int(record["img_size"])
        job = replace(
            _timm(record["model"], int(record["fits_batch_size"])),
            inputs=(InputTensor(shape=(3, size, size)),),
            optimizer=Optimizer(type=OptimizerType.SGD, momentum=0.9),
            precision=Precision.AMP_FP16,
            memory_format=MemoryFormat.CHANNELS_LAST
            if record["layout"] == "nhwc"
            else MemoryFormat.CONTIGUOUS,
        )
        failed = record["next_larger_that_failed"]
        yield Bracket(
            group=record["model"],
            gpu_type="nvidia-rtx-3090",
            job=normalize(job),
            fits_batch_size=int(record["fits_batch_size"]),
            failed_batch_size=int(failed) if failed else None,
        )


def _records(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _milabench(bench: str, batch_size: int) -> TrainingJob:
    """The recipes of the benchmark: see the tables' description."""
    if bench.startswith("bert"):
        job = TrainingJob(
            model=Model(catalog=CatalogModel(name="transformers/bert", task="masked-lm")),
            inputs=(InputTensor(name="input_ids", shape=(512,), dtype=DataType.INT64),),
            optimizer=Optimizer(type=OptimizerType.ADAM),
            loop=TrainingLoop(zero_grad=ZeroGrad.NEVER, keep_outputs=False),
        )
    elif bench.startswith("convnext"):
        job = _vision("torchvision/convnext_large", DataType.UNSPECIFIED)
    else:
        job = replace(
            _vision("torchvision/resnet50", DataType.FLOAT16),
            memory_format=MemoryFormat.CHANNELS_LAST,
        )
    low = bench.endswith("fp16") or bench == "resnet50"
    precision = Precision.AMP_FP16 if low else Precision.FP32
    return normalize(replace(job, micro_batch_size=batch_size, precision=precision))


def _vision(name: str, dtype: DataType) -> TrainingJob:
    return TrainingJob(
        model=Model(catalog=CatalogModel(name=name)),
        inputs=(InputTensor(shape=(3, 224, 224), dtype=dtype),),
    )


def _timm(model: str, batch_size: int) -> TrainingJob:
    """The optimizer is not recorded; plain SGD is assumed."""
    return normalize(
        TrainingJob(
            model=Model(catalog=CatalogModel(name=f"timm/{model}")), micro_batch_size=batch_size
        )
    )
