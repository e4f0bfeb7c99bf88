"""Figures of the accuracy report against arithmetic by hand."""

from __future__ import annotations

import pytest
from rows import MIB, outcome, scored

from measured import BRACKETS, MILABENCH, TIMM_A100
from reporting import scores, sections
from reporting.goals import goals
from reporting.predictions import Outcome
from reporting.scores import ALLOCATED, DRIVER_USED


def test_a_quantile_is_the_smallest_that_enough_do_not_exceed() -> None:
    ten = [float(n) for n in range(1, 11)]
    assert scores.quantile(ten, 0.9) == 9
    assert scores.quantile(ten, 0.91) == 10
    assert scores.quantile([3.0], 0.95) == 3
    assert scores.quantile(ten, 0.0) == 1


def test_errors_are_summed_up() -> None:
    found = scores.summary([0.1, -0.2, 0.3, -0.4])
    assert found.count == 4
    assert found.median == pytest.approx(0.25)
    assert found.mean == pytest.approx(0.25)
    assert found.p90 == found.worst == pytest.approx(0.4)
    assert found.bias == pytest.approx(-0.05)
    assert found.under == 0.5


def test_the_best_constant_makes_the_mean_error_the_smallest() -> None:
    predicted, measured = [100, 1000, 2000], [110, 1500, 2900]

    def mean_error(constant: int) -> float:
        pairs = zip(predicted, measured, strict=True)
        return sum(abs((p + constant) / m - 1) for p, m in pairs)

    best = scores.best_constant(predicted, measured)
    assert best == 10  # the small row weighs more than the other two together
    assert mean_error(best) == min(map(mean_error, range(1000)))


def test_each_gpu_type_has_its_own_constant() -> None:
    items = [
        scored(gpu_type="nvidia-t4", measured=1000, predicted=900),
        scored(gpu_type="nvidia-l40s", measured=1000, predicted=700),
        scored(gpu_type="nvidia-l40s", measured=1000, predicted=700),
    ]
    errors = scores.with_constants(items, lambda s: s.prediction.driver_used_bytes)
    assert errors == [0, 0, 0]


def test_the_a100_table_gets_a_constant_and_its_bounds_move_with_it() -> None:
    outcomes = [
        outcome(TIMM_A100, measured=measured, predicted=predicted)
        for measured, predicted in ((2000, 1000), (3000, 2000), (5000, 3000))
    ]
    items = scores.scored([*outcomes, outcome(MILABENCH, measured=2000, predicted=1000)])
    assert [s.predicted(DRIVER_USED) // MIB for s in items] == [2000, 3000, 4000, 1000]
    assert [s.upper_bytes // MIB for s in items] == [2000 + 1100, 4000 + 1100, 6000 + 1100, 2100]
    assert items[2].error() == pytest.approx(-0.2)


def test_large_models_of_the_a100_table_and_rows_without_an_estimate_are_left_out() -> None:
    large = outcome(TIMM_A100, measured=2000, parameter_count=300_000_001)
    elsewhere = outcome(MILABENCH, measured=2000, parameter_count=300_000_001)
    nothing = Outcome(row=large.row, prediction=None, reason="There is no such model.")
    assert [s.row.table for s in scores.scored([large, elsewhere, nothing])] == [MILABENCH]


def test_bounds_are_held_against_driver_used_bytes() -> None:
    below = {"lower_bound_bytes": 900 * MIB, "upper_bound_bytes": 1100 * MIB}
    items = [scored(measured=measured, **below) for measured in (999, 1000, 1200, 1201)]
    found = scores.bounds(items)
    assert (found.above_upper, found.below_lower) == (1, 1)
    assert found.height == pytest.approx((1200 / 1000 - 1 + 1200 / 1200 - 1) / 2)


def test_answers_about_fitting_are_counted() -> None:
    items = [
        scored(BRACKETS, ran=True, fits=True),
        scored(BRACKETS, ran=True, fits=False),
        scored(BRACKETS, ran=False, fits=False),
        scored(BRACKETS, ran=False, fits=False),
    ]
    found = scores.fits(items, lambda s: s.prediction.fits)
    assert (found.ran_right, found.ran, found.failed_right, found.failed) == (1, 2, 2, 2)
    assert found.right == 0.75


def test_a_peer_gets_the_limit_with_most_right_answers() -> None:
    needs = {1: (10, True), 2: (20, True), 3: (15, False), 4: (30, False)}
    items = [scored(BRACKETS, batch_size=n, ran=ran) for n, (_, ran) in needs.items()]
    found = scores.most_right(items, lambda s: needs[s.row.job.micro_batch_size][0])
    assert found.right == 0.75


def test_goals_are_judged_by_their_own_rows() -> None:
    items = [
        *(scored(MILABENCH, model="bert-fp32", measured=1000, predicted=1009) for _ in range(9)),
        scored(MILABENCH, model="resnet50", measured=1000, predicted=1041),
        scored(BRACKETS, ran=True, fits=False),
        scored(peak_allocated_bytes=250 * MIB),
    ]
    found = {goal.measure: goal for goal in goals(items)}
    assert found["driver-used, milabench BERT"].found == "p90 0.90 %"
    assert found["driver-used, milabench BERT"].reached is True
    assert found["driver-used, milabench, all"].found == "p90 0.90 %"
    assert found["fits or not, timm on RTX 3090"].verdict == "not reached"
    assert found["peak allocated, own corpus"].found == "median 100 %, p95 100 %"
    assert found["driver-used, own corpus"].verdict == "not judged: no measurements"


def test_verdicts_follow_from_the_bounds_and_the_capacity() -> None:
    capacity = {"capacity_bytes": 1000}
    items = [
        scored(BRACKETS, ran=True, upper_bound_bytes=1000, **capacity),
        scored(BRACKETS, ran=True, upper_bound_bytes=1001, **capacity),
        scored(BRACKETS, ran=False, fits=False, lower_bound_bytes=1001, **capacity),
    ]
    lines = sections.verdicts(items).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells == [
        [f"{BRACKETS}: FITS", "1", "0"],
        [f"{BRACKETS}: UNCERTAIN", "1", "0"],
        [f"{BRACKETS}: DOES_NOT_FIT", "0", "1"],
    ]


def test_the_worst_rows_come_first() -> None:
    items = [
        scored(model="near", measured=1000, predicted=1001),
        scored(model="far", measured=1000, predicted=500),
        scored(model="unmeasured", peak_allocated_bytes=1),
    ]
    lines = sections.worst(items, 2).splitlines()[2:]
    assert ["far" in lines[0], "0.500" in lines[0], "near" in lines[1]] == [True] * 3
    assert len(lines) == 2
    assert ALLOCATED not in "".join(lines)
