"""Measured memory as jobs with results: public tables, and lines of `bench/corpus`.

    milabench_dev.csv                   H100 and L40S; gpu,bench,batch_size,driver_used_mib
    timm_a100_fp32_dev.csv              A100 40 GB; model,batch_size,driver_used_mib,
                                        fake_tensor_peak_mib
    timm_rtx3090_amp_brackets_dev.csv   RTX 3090; layout,model,img_size,fits_batch_size,
                                        next_larger_that_failed

A folder holds any of these; `public_rows` gives what is there. Driver-used is what nvidia-smi
shows. The corpus (`corpus_rows`) has allocated and reserved bytes too.
"""

from __future__ import annotations

import csv
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from corpus.lines import Line, read_lines
from memplan.types import (
    CatalogModel,
    DataType,
    InputTensor,
    MemoryFormat,
    Model,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    Precision,
    TrainingJob,
    TrainingLoop,
    ZeroGrad,
)
from memplan_server.jobs import normalize

__all__ = ["BRACKETS", "CORPUS", "MILABENCH", "TIMM_A100", "Row", "corpus_rows", "public_rows"]

CORPUS, MILABENCH, TIMM_A100, BRACKETS = "corpus", "milabench", "timm-a100", "timm-rtx3090"
"""Names of tables."""

MIB = 1 << 20

A100_CONTEXT_BYTES = 1_216 * MIB
"""CUDA context in the A100 table: the 1,740 MiB of its smallest models, less what the driver keeps.
The table's own constant (`reporting.scores.scored`) takes its place."""

EAGER_CONTEXT_BYTES = 1_321 * MIB
"""CUDA context of an RTX 3090 with a stack that loads every kernel when it starts, as PyTorch 1.12
with CUDA 11.3 does: that of the smallest models in the A100 table, 1,740 MiB, by SM count."""

PREFETCHED_BATCHES = 3.25
"""What timm's `PrefetchLoader` (timm/data/loader.py) holds in a stream of its own: the batch that
the loop works on, the next, the one before while its variable is not overwritten yet, each in
float32, and the bytes that the next one is made from."""

_FUSED_HIERA = (1, 0, 26)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One job on one GPU, and how it went. Bytes; None is not measured."""

    table: str
    model: str
    """Or the benchmark's name, or the job's in the corpus."""
    gpu_type: str
    job: TrainingJob
    family: str = ""
    """The kind of model; empty where the table does not say it."""
    ran: bool = True
    """False when it ran out of memory; then nothing was measured."""
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    driver_used_bytes: int | None = None
    fake_tensor_bytes: int | None = None
    """PyTorch's fake-tensor peak, where the table has it."""
    context_bytes: int | None = None
    """CUDA context of the software it ran with, where that is not what the GPU catalog is about."""
    loader_batches: float = 0.0
    """Batches that the data loader held on the GPU beyond the loop's own, in segments of a stream
    of its own."""
    library_versions: Mapping[str, str] = field(default_factory=dict)
    """What it ran with, in the corpus."""
    error: str = ""
    """Why it failed otherwise than by running out of memory, or is of another model than the
    installed libraries'; then nothing is known."""


def public_rows(folder: Path) -> Iterator[Row]:
    """Every measurement of the public tables in `folder`."""
    for record in _records(folder / "milabench_dev.csv"):
        yield Row(
            table=MILABENCH,
            model=record["bench"],
            gpu_type={"H100": "nvidia-h100-80gb", "L40S": "nvidia-l40s"}[record["gpu"]],
            job=_milabench(record["bench"], int(record["batch_size"])),
            driver_used_bytes=int(float(record["driver_used_mib"]) * MIB),
        )
    for record in _records(folder / "timm_a100_fp32_dev.csv"):
        yield Row(
            table=TIMM_A100,
            model=record["model"],
            gpu_type="nvidia-a100-40gb",
            job=_timm(record["model"], int(record["batch_size"])),
            context_bytes=A100_CONTEXT_BYTES,
            loader_batches=PREFETCHED_BATCHES - 1,  # it is the loop's own too
            driver_used_bytes=int(float(record["driver_used_mib"]) * MIB),
            error=_rewritten(record["model"]),
            fake_tensor_bytes=int(float(record["fake_tensor_peak_mib"]) * MIB),
        )
    for record in _records(folder / "timm_rtx3090_amp_brackets_dev.csv"):
        yield from _bracket(record)


def corpus_rows(folder: Path) -> Iterator[Row]:
    """Every line of the corpus; dry runs on a CPU are left out."""
    for line in read_lines(folder):
        if line.measured is None or line.measured.device_type == "cuda":
            yield _line(line)


def _line(line: Line) -> Row:
    """A GPU that is not in the catalog goes by the driver's name."""
    measured = line.measured
    ran = measured is not None and measured.out_of_memory is None
    figures = measured if ran else None
    return Row(
        table=CORPUS,
        model=line.name,
        gpu_type=line.gpu_type or (measured.gpu.name if measured else ""),
        job=line.job,
        family=line.family,
        ran=ran,
        peak_allocated_bytes=figures.peak_allocated_bytes if figures else None,
        peak_reserved_bytes=figures.peak_reserved_bytes if figures else None,
        driver_used_bytes=figures.driver_used_bytes if figures else None,
        library_versions=measured.library_versions if measured else {},
        error=line.error and f"the run failed: {line.error}",
    )


def _bracket(record: Mapping[str, str]) -> Iterator[Row]:
    """The batch size that ran and, where there is one, the next larger that did not.

    torch 1.12 had no fused attention, its optimizers took one parameter at a time, and `zero_grad`
    kept the gradients' memory.
    """
    size = int(record["img_size"])
    channels_last = record["layout"] == "nhwc"
    for column, ran in (("fits_batch_size", True), ("next_larger_that_failed", False)):
        if record[column]:
            made = _timm(record["model"], int(record[column]), fused_attn=False)
            job = replace(
                made,
                optimizer=replace(made.optimizer, implementation=OptimizerImplementation.SINGLE),
                loop=replace(made.loop, zero_grad_set_to_none=False),
                inputs=(InputTensor(shape=(3, size, size)),),
                precision=Precision.AMP_FP16,
                memory_format=MemoryFormat.CHANNELS_LAST
                if channels_last
                else MemoryFormat.CONTIGUOUS,
            )
            yield Row(
                table=BRACKETS,
                model=record["model"] + (" (channels-last)" if channels_last else ""),
                gpu_type="nvidia-rtx-3090",
                job=normalize(job),
                ran=ran,
                context_bytes=EAGER_CONTEXT_BYTES,
                loader_batches=PREFETCHED_BATCHES - (not channels_last),  # whose layout is copied
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


def _rewritten(model: str) -> str:
    """Why what is installed is another model than the A100 table's, if it is."""
    if not model.startswith("hiera_"):
        return ""
    installed = re.findall(r"\d+", importlib.metadata.version("timm"))
    if tuple(map(int, installed[:3])) >= _FUSED_HIERA:
        return "timm computes its attention with a fused kernel since 1.0.26, after it was measured"
    return ""


def _timm(model: str, batch_size: int, **config: bool) -> TrainingJob:
    """The optimizer is not recorded. What timm's `train.py` does by default is assumed: SGD with
    Nesterov momentum, and weight decay.

    With momentum, what is measured at batch size 8 beyond the reserved bytes is the same for models
    of 0.4 to 208 million parameters (1,670 to 1,820 MiB); with plain SGD it grows with the
    parameters, with Adam it falls.

    Both tables come from timm's `train.py`, which sets `torch.backends.cudnn.benchmark`: the first
    call of each convolution tries algorithms, with workspaces of up to gigabytes that are not
    simulated; the highest value polled has seen those of some rows.
    """
    return normalize(
        TrainingJob(
            model=Model(catalog=CatalogModel(name=f"timm/{model}", config=config)),
            optimizer=Optimizer(
                type=OptimizerType.SGD, momentum=0.9, nesterov=True, weight_decay=2e-5
            ),
            micro_batch_size=batch_size,
            cudnn_benchmark=True,
        )
    )
