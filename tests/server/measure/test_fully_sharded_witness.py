"""Two real ranks of FSDP with real collectives (gloo, on the CPU) against the simulated one."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sharded_ranks import RANKS
from test_witness import EAGER, GPU, MODELS, NUMBERS, ON_THE_HOST, SGD, beside_workspaces

from memplan.plain import to_dict
from memplan.types import (
    CatalogModel,
    DataParallel,
    DataParallelStrategy,
    DataType,
    InputTensor,
    Model,
    Optimizer,
    OptimizerType,
    TrainingJob,
    TrainingLoop,
)
from memplan_server.errors import InvalidJob
from memplan_server.jobs import normalize
from memplan_server.measure.comparison import compare_events
from memplan_server.measure.request import Request
from memplan_server.measure.run import run
from memplan_server.measure.simulated import simulate

FSDP = DataParallel(strategy=DataParallelStrategy.FSDP, shard_count=RANKS)
SCRIPT = Path(__file__).with_name("sharded_ranks.py")
OF_GLOO = {"split"}
"""Copies the gradients that it reduces; NCCL does not."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        pytest.param("transformers/llama", {"optimizer": SGD}, id="llama"),
        pytest.param(
            "transformers/gpt2",
            {"optimizer": SGD, "loop": TrainingLoop(accumulation_steps=2)},
            id="gpt2-accumulating",
        ),
        pytest.param(
            "transformers/llama",
            {
                "optimizer": Optimizer(type=OptimizerType.ADAM),
                "data_parallel": replace(FSDP, reshard_after_forward=False),
            },
            id="llama-not-resharded",
        ),
    ],
)
def test_the_same_is_allocated_with_real_ranks(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    shape, config = MODELS[name]
    job = TrainingJob(
        model=Model(catalog=CatalogModel(name=name, config=config | EAGER)),
        inputs=(InputTensor(shape=shape, dtype=DataType.INT64),),
        micro_batch_size=4,
        data_parallel=FSDP,
    )
    job = normalize(replace(job, **fields))
    file, out = tmp_path / "job.json", tmp_path / "events"
    file.write_text(json.dumps(to_dict(job)), encoding="utf-8")
    subprocess.run([sys.executable, SCRIPT, file, out], check=True, timeout=120)
    found = compare_events(pickle.loads(out.read_bytes()), simulate(job, GPU).events)
    assert found.matched_allocations > 500
    assert {group.operator for group in found.only_measured} <= ON_THE_HOST | NUMBERS | OF_GLOO
    assert beside_workspaces(found) == set()
    assert found.resized == found.freed_elsewhere == ()


def test_one_process_alone_does_not_run_it() -> None:
    catalog = Model(catalog=CatalogModel(name="torchvision/squeezenet1_1"))
    job = normalize(TrainingJob(model=catalog, micro_batch_size=1, data_parallel=FSDP))
    with pytest.raises(InvalidJob, match="all its ranks to be measured"):
        run(Request(job=job, device_type="cpu"))
