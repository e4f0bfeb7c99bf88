"""The accuracy command from tables to page, in a folder of its own."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rows import MIB, outcome

import accuracy
from corpus.lines import Line
from measured import BRACKETS, CORPUS, MILABENCH, TIMM_A100, corpus_rows
from memplan.types import (
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    MemoryEstimate,
    Model,
    TrainingJob,
)
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure.measurement import Gpu, Measurement, OutOfMemory
from memplan_server.planning import estimate_memory
from reporting import document, plots
from reporting.answers import PEERS
from reporting.goals import goals
from reporting.predictions import Traced
from reporting.scores import scored

T4 = GpuCatalog.load().get("nvidia-t4")
KEPT = T4.total_bytes - T4.usable_bytes


def perceptron(batch_size: int) -> TrainingJob:
    layers = tuple(Layer(linear=Linear(out_features=n)) for n in (4096, 4096, 10))
    return normalize(
        TrainingJob(
            model=Model(layer_stack=LayerStack(layers=layers)),
            inputs=(InputTensor(shape=(1024,)),),
            micro_batch_size=batch_size,
        )
    )


def line(job: TrainingJob, expected: MemoryEstimate | None) -> Line:
    """Allocated measured 1 % above, reserved 2 % below, driver-used 4 % above what is expected; or
    a job that ran out of memory."""
    estimate = expected or MemoryEstimate()
    measured = Measurement(
        device_type="cuda",
        gpu=Gpu(name="Tesla T4"),
        library_versions={"torch": "2.11.0"},
        peak_allocated_bytes=round(estimate.peak_allocated_bytes * 1.01),
        peak_reserved_bytes=round(estimate.peak_reserved_bytes * 0.98),
        driver_used_bytes=round((estimate.device_used_bytes + KEPT) * 1.04),
        out_of_memory=None if expected else OutOfMemory(requested_bytes=1, phase="forward", step=0),
    )
    return Line(
        name=f"mlp-b{job.micro_batch_size}",
        family="mlp",
        job=job,
        gpu_type=T4.name,
        measured=measured,
        error="",
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the command left."""

    page: str
    lines: list[dict[str, str]]
    printed: str

    def row(self, *starts: str) -> list[str]:
        """Cells of the first table row whose first cell begins so."""
        for text in self.page.splitlines():
            cells = [cell.strip() for cell in text.strip("|").split("|")]
            if text.startswith("|") and cells[0].startswith(starts):
                return cells
        raise AssertionError(f"no row {starts}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The command over two lines of the corpus and public tables of a few rows."""
    folder = tmp_path_factory.mktemp("accuracy")
    small, huge = perceptron(64), perceptron(1 << 20)
    expected = estimate_memory(Traced(), small, T4)
    failed = Line(
        name="broken", family="mlp", job=small, gpu_type=T4.name, measured=None, error="no luck"
    )
    lines = (line(small, expected), line(huge, None), failed)
    (folder / "nvidia-t4.jsonl").write_text("".join(item.to_json() + "\n" for item in lines))
    (folder / "timm_a100_fp32_dev.csv").write_text(
        "model,batch_size,driver_used_mib,fake_tensor_peak_mib\n"
        "test_resnet,8,2000,50\ntest_resnet,16,2010,90\nno_such_model,8,2000,50\n"
    )
    (folder / "timm_rtx3090_amp_brackets_dev.csv").write_text(
        "layout,model,img_size,fits_batch_size,next_larger_that_failed\n"
        "nhwc,test_resnet,160,8,1048576\nnchw,test_vit,160,1048576,\n"
    )
    out, table = folder / "page.md", folder / "all.csv"
    arguments = [str(folder), "--corpus", str(folder), "--out", str(out), "--csv", str(table)]
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.extend(map(str, words)))
        assert accuracy.main([*arguments, "--processes", "1"]) == 0
    with table.open(newline="") as file:
        return Run(
            page=out.read_text(), lines=list(csv.DictReader(file)), printed="\n".join(printed)
        )


def test_the_corpus_is_judged_in_its_three_quantities(run: Run) -> None:
    assert run.row("peak_allocated_bytes: all")[1:3] == ["1", "0.99 %"]  # 1 / 1.01 - 1
    assert run.row("peak_reserved_bytes: all")[1:3] == ["1", "2.04 %"]  # 1 / 0.98 - 1
    assert run.row("driver_used_bytes: all")[1:3] == ["1", "3.85 %"]  # 1 / 1.04 - 1
    assert run.row("peak reserved, own corpus")[2:] == ["median 2.04 %, p95 2.04 %", "not reached"]
    assert run.row("driver-used, own corpus")[2] == "median 3.85 %, p95 3.85 %"
    assert run.row("driver-used, milabench BERT")[3] == "not judged: no measurements"


def test_rows_that_ran_out_of_memory_are_questions_too(run: Run) -> None:
    table = run.page.partition("said to fit")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in text.strip("|").split("|")] for text in table]
    found = {cells[0]: cells[1:] for cells in rows}
    assert found[f"{CORPUS}: memplan"] == ["2", "100 %", "1 of 1", "1 of 1"]
    assert found[f"{BRACKETS}: memplan"] == ["3", "66.67 %", "1 of 2", "1 of 1"]


def test_every_prediction_is_in_the_csv_file(run: Run) -> None:
    assert len(run.lines) == 9
    first = run.lines[0]
    assert (first["table"], first["family"], first["ran"]) == (CORPUS, "mlp", "True")
    error = int(first["driver_used_bytes"]) / int(first["measured_driver_used_bytes"]) - 1
    assert error == pytest.approx(1 / 1.04 - 1, abs=1e-6)
    for peer in PEERS:
        assert int(first[peer.replace(" ", "_") + "_bytes"]) > 0
    unknown = next(item for item in run.lines if item["model"] == "no_such_model")
    assert unknown["driver_used_bytes"] == ""
    assert "no model" in unknown["reason"]


def test_the_a100_table_has_one_constant(run: Run) -> None:
    first, second = (
        item for item in run.lines if item["model"] == "test_resnet" and item["table"] == TIMM_A100
    )
    growth = int(second["driver_used_bytes"]) - int(first["driver_used_bytes"])
    missing = abs(growth - 10 * MIB) / (2010 * MIB)  # the first row, which weighs more, is met
    assert run.row(f"{TIMM_A100}: all")[1] == "2"
    assert run.row(f"{TIMM_A100}: all")[6] == f"{100 * missing:.2f} %"


def test_what_has_no_estimate_is_listed(run: Run) -> None:
    assert "- no_such_model: There is no model 'timm/no_such_model'." in run.page
    assert "- broken: the run failed: no luck" in run.page
    assert "not counted (2 rows)" in run.page
    assert "no estimate: no_such_model" in run.printed


def test_the_page_says_what_the_corpus_was_measured_with(run: Run) -> None:
    assert "our own runs, all three quantities; torch 2.11.0." in run.page


def test_a_gpu_outside_the_catalog_and_a_dry_run_are_told_apart(tmp_path: Path) -> None:
    expected = MemoryEstimate(peak_allocated_bytes=1, peak_reserved_bytes=1)
    unknown = replace(line(perceptron(8), expected), gpu_type=None)
    assert unknown.measured is not None
    dry = replace(unknown, measured=replace(unknown.measured, device_type="cpu"))
    (tmp_path / "lines.jsonl").write_text(f"{unknown.to_json()}\n{dry.to_json()}\n")
    (row,) = corpus_rows(tmp_path)
    assert row.gpu_type == "Tesla T4"


def test_the_terminal_gets_the_rows_that_are_furthest_off(run: Run) -> None:
    assert "wrong about" in run.printed
    assert "test_vit" in run.printed.partition("wrong about")[2]
    assert "predicted MiB" in run.printed


def test_limited_runs_take_models_at_even_distances() -> None:
    rows = [outcome(MILABENCH, model=str(n)).row for n in range(6) for _ in range(2)]
    assert [row.model for row in accuracy._limited(rows, 2)] == ["0", "0", "3", "3"]
    assert accuracy._limited(rows, 0) == rows


def test_the_page_without_any_measurement_judges_nothing(tmp_path: Path) -> None:
    document.write(tmp_path / "page.md", [], [], goals([]))
    page = (tmp_path / "page.md").read_text()
    assert page.count("not judged: no measurements") == len(goals([]))
    assert not list((tmp_path / "page").iterdir())


def test_plots_are_small_and_the_same_again(tmp_path: Path) -> None:
    peers = dict.fromkeys(PEERS, 500 * MIB)
    tables = (CORPUS, MILABENCH, TIMM_A100)
    outcomes = [
        outcome(
            table, batch_size=1 + n, measured=900 + n, peers=peers, peak_allocated_bytes=490 * MIB
        )
        for table in tables
        for n in range(300)
    ]
    drawn = [plots.draw(scored(outcomes), tmp_path / name) for name in ("first", "second")]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {"predicted-measured", "error-batch-size", "error-groups", "peers"}
    for stem in drawn[0]:
        first, second = (tmp_path / name / f"{stem}.svg" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_size < 150_000
