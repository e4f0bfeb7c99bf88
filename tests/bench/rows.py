"""Measurements and predictions with figures that are easy to reckon with."""

from __future__ import annotations

from typing import Any

from measured import CORPUS, Row
from memplan.types import CatalogModel, Model, TrainingJob
from reporting.predictions import Outcome, Prediction
from reporting.scores import Scored

MIB = 1 << 20
KEPT = 100
CAPACITY = 20_000


def outcome(
    table: str = CORPUS,
    *,
    batch_size: int = 8,
    model: str = "a-model",
    gpu_type: str = "nvidia-t4",
    measured: int | None = None,
    predicted: int = 1000,
    ran: bool = True,
    **fields: Any,
) -> Outcome:
    """`measured` and `predicted` are driver-used MiB; the driver keeps 100. Other fields are the
    prediction's, in bytes."""
    name = CatalogModel(name="timm/resnet18")
    row = Row(
        table=table,
        model=model,
        gpu_type=gpu_type,
        job=TrainingJob(model=Model(catalog=name), micro_batch_size=batch_size),
        ran=ran,
        driver_used_bytes=None if measured is None else measured * MIB,
        **{
            name: fields.pop(name)
            for name in ("peak_allocated_bytes", "peak_reserved_bytes")
            if name in fields
        },
    )
    values = {
        "family": "cnn",
        "parameter_count": 1,
        "peak_allocated_bytes": 500 * MIB,
        "peak_reserved_bytes": (predicted - KEPT) * MIB,
        "device_used_bytes": (predicted - KEPT) * MIB,
        "lower_bound_bytes": 0,
        "upper_bound_bytes": 2 * predicted * MIB,
        "confidence": 0.99,
        "kept_bytes": KEPT * MIB,
        "capacity_bytes": CAPACITY * MIB,
        "fits": True,
    }
    return Outcome(row=row, prediction=Prediction(**(values | fields)))


def scored(table: str = CORPUS, **fields: Any) -> Scored:
    """The same, without a table's own constant."""
    made = outcome(table, **fields)
    assert made.prediction is not None
    return Scored(row=made.row, prediction=made.prediction)
