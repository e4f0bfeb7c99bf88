"""Answers of peers that are kept between runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rows import outcome

from measured import TIMM_A100, Row
from memplan.types import CatalogModel, Model, Precision, TrainingJob
from memplan_server.jobs import normalize
from reporting import answers
from reporting.answers import PEERS, Answers
from reporting.predictions import predict

JOB = normalize(
    TrainingJob(model=Model(catalog=CatalogModel(name="timm/test_resnet")), micro_batch_size=8)
)
SAID = {8: {"MemTracker": 1}, 16: {"MemTracker": 2}}


def rows(*sizes: int) -> list[Row]:
    jobs = [replace(JOB, micro_batch_size=size) for size in sizes]
    return [replace(outcome(TIMM_A100).row, job=job) for job in jobs]


def test_answers_are_kept_for_the_job_at_its_batch_sizes(tmp_path: Path) -> None:
    file = tmp_path / "peers.jsonl"
    Answers(file).keep(JOB, SAID)
    kept = Answers(file)
    assert kept.of(replace(JOB, micro_batch_size=16), {16, 8}) == SAID
    assert kept.of(JOB, {8, 32}) is None
    assert kept.of(replace(JOB, precision=Precision.AMP_FP16), {8, 16}) is None


def test_other_versions_are_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "peers.jsonl"
    Answers(file).keep(JOB, SAID)
    monkeypatch.setattr(answers, "_versions", lambda: "torch 3.0")
    assert Answers(file).of(JOB, SAID) is None


def test_a_second_run_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "peers.jsonl"
    first = predict(rows(8, 16), peers=Answers(file), processes=1)
    assert all(set(o.prediction.peers) == set(PEERS) for o in first if o.prediction)
    monkeypatch.setattr(answers, "ask", lambda *_: pytest.fail("asked again"))
    assert predict(rows(8, 16), peers=Answers(file), processes=1) == first


def test_peers_are_left_alone_when_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ask", lambda *_: pytest.fail("asked"))
    (found,) = predict(rows(8), peers=None, processes=1)
    assert found.prediction is not None
    assert found.prediction.peers == {}
