"""What the margins are taken from, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import calibrate
from calibrate import Residual
from measured import TIMM_A100, Row
from memplan.types import TrainingJob
from memplan_server.planning.uncertainty import Residuals
from reporting.predictions import Prediction
from reporting.scores import Scored
from reporting.spoiled import sound

MIB = 1 << 20
PREDICTION = Prediction(
    parameter_count=1,
    bounds_family="convolution",
    peak_allocated_bytes=0,
    peak_reserved_bytes=1000 * MIB,
    device_used_bytes=1500 * MIB,
    unsure_bytes=1000 * MIB,
    lower_bound_bytes=0,
    upper_bound_bytes=0,
    confidence=0.99,
    kept_bytes=0,
    capacity_bytes=0,
    fits=True,
)


def item(batch_size: int, measured_mib: int, model: str = "m") -> Scored:
    row = Row(
        table=TIMM_A100,
        model=model,
        gpu_type="nvidia-a100-40gb",
        job=TrainingJob(micro_batch_size=batch_size),
        driver_used_bytes=measured_mib * MIB,
    )
    return Scored(row=row, prediction=PREDICTION)


def batch_sizes(items: Sequence[Scored]) -> list[int]:
    return [i.row.job.micro_batch_size for i in items]


def test_a_row_off_its_models_line_is_left_out() -> None:
    line = [item(b, 1000 + 10 * b) for b in (8, 16, 32, 64, 128)]
    assert sound(line) == line
    spoiled = [*line[:2], item(32, 2000), *line[3:]]
    assert batch_sizes(sound(spoiled)) == [8, 16, 64, 128]


def test_less_than_the_tables_own_tensors_is_no_measurement() -> None:
    line = [item(b, 1000 + 10 * b) for b in (8, 16, 32)]
    failed = replace(item(64, 1640).row, fake_tensor_bytes=1641 * MIB)
    assert sound([*line, Scored(row=failed, prediction=PREDICTION)]) == line


def test_models_with_fewer_than_three_rows_cannot_be_judged() -> None:
    assert sound([item(8, 1000), item(16, 2000)]) == []


def test_residuals_leave_the_slack_out() -> None:
    above = calibrate.measured_residual(item(8, 1500 + calibrate.SLACK_MIB + 50))
    assert (above.above, above.below) == (pytest.approx(0.05), 0)
    assert above.height(above.above) == pytest.approx(0)
    assert above.height(above.above + 0.1) == pytest.approx(
        0.1 * 1000 / (1550 + calibrate.SLACK_MIB)
    )
    below = calibrate.measured_residual(item(8, 1500 - calibrate.SLACK_MIB - 20))
    assert (below.above, below.below) == (0, pytest.approx(0.02))
    assert calibrate.measured_residual(item(8, 1500 + calibrate.SLACK_MIB)).above == 0


def test_margins_are_held_against_models_that_they_were_not_taken_from() -> None:
    ordinary = [
        Residual(family="dense", model=f"m{n}", above=0.01, below=0, expected=1.0, unsure=0.5)
        for n in range(99)
    ]
    odd = replace(ordinary[0], model="odd", above=0.3)
    text = calibrate.held_out([*ordinary, odd])
    # nine folds in ten have seen the odd one, whose margin is then everybody's; its own has not
    assert "dense                        hold for 99 of 100 (99.0%), median height 15.0%" in text


def test_quantiles_are_those_of_split_conformal_prediction() -> None:
    hundred = [n / 100 for n in range(100)]
    assert calibrate.quantile(hundred, 0.9) == 0.90  # the 91st of 100: ceil(101 x 0.9)
    assert calibrate.quantile(hundred, 0.99) == 0.99
    assert calibrate.quantile([0.1, 0.2], 0.99) == 0.2


def test_the_document_is_what_the_bounds_read_and_small_families_lean_on_all_rows() -> None:
    many = [
        Residual(family="convolution", model=f"m{n}", above=n / 1000, below=0) for n in range(200)
    ]
    few = [replace(many[0], family="channels_last_convolution", model="few")] * 3
    dense = [replace(r, family="dense", above=r.above / 10) for r in many]
    text = calibrate.document([*many, *dense, *few], left_out=7)
    assert "Left out: 7 rows" in text
    residuals = Residuals.parse(text)
    margins = {name: by_confidence[0.99][0] for name, by_confidence in residuals.quantiles.items()}
    assert margins["convolution"] == pytest.approx(0.198)
    # rounded up: a margin covers the row that it was taken from
    odd = [replace(r, above=r.above + 0.0001) for r in many]
    rounded = Residuals.parse(calibrate.document([*odd, *dense], left_out=0))
    assert rounded.quantiles["convolution"][0.99][0] == 0.199
    assert margins["dense"] == pytest.approx(0.020, abs=0.001)
    assert margins["channels_last_convolution"] >= 0.19
