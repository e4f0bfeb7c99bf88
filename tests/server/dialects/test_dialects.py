"""Requests in the words of schedulers: against files, schemas, and names that try to break out."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.types import (
    AccumulationPlan,
    GpuTarget,
    GpuType,
    Placement,
    PlanJobRequest,
    PlanJobResponse,
    Scheduler,
    TrainingJob,
    TrainingLoop,
    Verdict,
)
from memplan_server.dialects import Candidate, Wanted, render, wanted
from memplan_server.dialects.text import comment, documents
from memplan_server.gpus.catalog import GpuCatalog

FILES = Path(__file__).parent / "requests"
CATALOG = GpuCatalog.load()
DIALECTS = [s for s in Scheduler if s is not Scheduler.UNSPECIFIED]
SHARING = [Scheduler.KAI, Scheduler.HAMI, Scheduler.VOLCANO]
OF_KUBERNETES = [Scheduler.KUBERNETES, Scheduler.DRA, Scheduler.KUEUE, *SHARING]
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
MIB = 1 << 20


def gpus(**need_mib: int) -> tuple[Candidate, ...]:
    """Candidates of the catalog by their needs: `gpus(nvidia_t4=8000)`."""
    return tuple(
        Candidate(gpu_type=CATALOG.get(name), need_bytes=need * MIB)
        for name, need in need_mib.items()
    )


def request(*candidates: Candidate, ranks: int = 1) -> Wanted:
    environment = {"MEMPLAN_MICRO_BATCH_SIZE": "64", "MEMPLAN_ACCUMULATION_STEPS": "2"}
    return Wanted(
        candidates=candidates,
        rank_count=ranks,
        environment=environment,
        reason="Takes 7.18 GiB, at most 8.52 GiB, of 39.49 GiB.",
    )


USUAL = request(*gpus(nvidia_a100_40gb=8725, nvidia_t4=8459), ranks=2)


@pytest.mark.parametrize("scheduler", DIALECTS)
def test_the_request_is_the_one_in_the_file(scheduler: Scheduler) -> None:
    # To write them again: PYTHONPATH=client:server python tests/server/dialects/test_dialects.py
    assert render(scheduler, USUAL) == (FILES / f"{scheduler.value}.txt").read_text()


@pytest.mark.parametrize("scheduler", DIALECTS)
def test_without_a_gpu_there_is_only_a_comment_that_says_why(scheduler: Scheduler) -> None:
    text = render(scheduler, Wanted(reason="Takes 90 GiB;\n#SBATCH --gres=gpu:1"))
    assert text == "# memplan: no request. Takes 90 GiB; #SBATCH --gres=gpu:1\n"


def test_no_scheduler_no_text() -> None:
    assert render(Scheduler.UNSPECIFIED, USUAL) == ""


def test_a_gpu_without_a_name_in_the_dialect_is_said_to_have_none() -> None:
    slices = request(
        *(Candidate(gpu_type=g, need_bytes=MIB) for g in CATALOG.all() if g.mig_parent)
    )
    for scheduler in (Scheduler.RAY, Scheduler.SKYPILOT, Scheduler.KAI, Scheduler.VOLCANO):
        text = render(scheduler, slices)
        assert f"no name in {scheduler.value}" in text
        assert text.count("\n") == 1


@pytest.mark.parametrize("version", ["1.34", NEWEST])
@pytest.mark.parametrize("scheduler", OF_KUBERNETES)
def test_objects_follow_the_schemas_of_kubernetes(scheduler: Scheduler, version: str) -> None:
    whole = [c for c in every_gpu() if not c.gpu_type.mig_parent]
    slices = [c for c in every_gpu() if c.gpu_type.mig_parent]
    for candidates in (whole, [slices[0]] if scheduler not in SHARING else whole[:1]):
        for data in yaml.safe_load_all(render(scheduler, request(*candidates))):
            kubernetes_validate.validate(data, version, strict=True)


@pytest.mark.parametrize("scheduler", [Scheduler.SLURM, Scheduler.KUBERNETES, Scheduler.DRA])
def test_every_gpu_of_the_catalog_has_a_name(scheduler: Scheduler) -> None:
    for candidate in every_gpu():
        assert "no request" not in render(scheduler, request(candidate))


def every_gpu() -> list[Candidate]:
    return [Candidate(gpu_type=g, need_bytes=g.usable_bytes) for g in CATALOG.all()]


def test_affinity_admits_the_node_that_just_suffices_and_no_smaller_one() -> None:
    (pod,) = yaml.safe_load_all(render(Scheduler.KUBERNETES, USUAL))
    assert admitted(pod, {"nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.memory": "8459"})
    assert not admitted(
        pod, {"nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.memory": "8458"}
    )
    # The larger need is that of the other GPU type.
    a100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", "nvidia.com/gpu.memory": "8724"}
    assert not admitted(pod, a100)
    assert not admitted(
        pod, {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "9999"}
    )
    assert not admitted(pod, {})


def admitted(pod: dict[str, Any], labels: dict[str, str]) -> bool:
    """As the scheduler's node affinity has it, for `In` and `Gt`."""
    required = pod["spec"]["affinity"]["nodeAffinity"]
    required = required["requiredDuringSchedulingIgnoredDuringExecution"]
    return any(
        all(
            labels.get(e["key"]) in e["values"]
            if e["operator"] == "In"
            else e["key"] in labels and int(labels[e["key"]]) > int(e["values"][0])
            for e in term["matchExpressions"]
        )
        for term in required["nodeSelectorTerms"]
    )


@pytest.mark.parametrize("scheduler", [Scheduler.KUBERNETES, Scheduler.DRA])
def test_a_mig_profile_is_asked_for_by_its_own_name_and_not_with_whole_gpus(
    scheduler: Scheduler,
) -> None:
    slice_ = CATALOG.get("nvidia-a100-40gb-mig-3g.20gb")
    mixed = (Candidate(gpu_type=slice_, need_bytes=9000 * MIB), *gpus(nvidia_t4=9000))
    text = render(scheduler, request(*mixed))
    assert "3g.20gb" in text
    assert "T4" not in text
    assert "3g.20gb" not in render(scheduler, request(*reversed(mixed)))


def test_dra_asks_only_what_the_device_says_of_itself() -> None:
    template, pod = yaml.safe_load_all(render(Scheduler.DRA, USUAL))
    [device] = template["spec"]["spec"]["devices"]["requests"]
    [selector] = device["exactly"]["selectors"]
    expression = selector["cel"]["expression"]
    assert expression.startswith("has(device.attributes['gpu.nvidia.com'].productName) && has(")
    assert "quantity('8459Mi')" in expression
    claim = pod["spec"]["resourceClaims"][0]
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    assert pod["spec"]["containers"][0]["resources"]["claims"] == [{"name": claim["name"]}]


@pytest.mark.parametrize("scheduler", SHARING)
def test_shared_gpus_get_the_largest_need_and_those_that_hold_it(scheduler: Scheduler) -> None:
    text = render(scheduler, request(*gpus(nvidia_t4=8000, nvidia_l4=16_000, nvidia_a10=7000)))
    assert "8000" in text
    assert "16000" not in text
    assert "T4" in text
    assert "A10" in text
    assert "L4" not in text


def test_ray_takes_a_share_of_the_first_gpu_it_knows() -> None:
    text = render(Scheduler.RAY, request(*gpus(nvidia_rtx_3090=1, nvidia_t4=15_095)))
    options, workers = ast.parse(text).body
    assert isinstance(options, ast.Assign)
    assert isinstance(workers, ast.Assign)
    chosen = ast.literal_eval(options.value)
    assert chosen["num_gpus"] == 1.0
    assert chosen["accelerator_type"] == "T4"
    assert ast.literal_eval(workers.value) == 1


@pytest.mark.parametrize("need", [1, 8_000 * MIB, 15_094 * MIB])
def test_rays_share_suffices(need: int) -> None:
    t4 = CATALOG.get("nvidia-t4")
    text = render(Scheduler.RAY, request(Candidate(gpu_type=t4, need_bytes=need)))
    options = ast.parse(text).body[0]
    assert isinstance(options, ast.Assign)
    share = ast.literal_eval(options.value)["num_gpus"]
    assert need <= round(share * 10_000) * t4.usable_bytes / 10_000
    assert (share - 0.0001) * t4.usable_bytes < need


HOSTILE = st.text(
    st.sampled_from(list("a1.-_ :'\"\\#\n\r\t|&;$(){}[],=`\x00\x85\u2028\ufeff\ud800é")),
    max_size=20,
) | st.sampled_from(["no", "~", "- x", "$(DOLLAR)", "' ]) || true", '"\n#SBATCH --uid=0', "x: y"])


@given(HOSTILE, st.lists(HOSTILE, max_size=4), st.sampled_from(["", "nvidia-t4"]), HOSTILE)
@settings(max_examples=25, deadline=None)
def test_no_name_breaks_out_of_its_place(
    name: str, aliases: list[str], parent: str, reason: str
) -> None:
    t4 = CATALOG.get("nvidia-t4")
    odd = GpuType(
        name=f"{parent}-mig-{name}" if parent else name,
        aliases=tuple(aliases),
        usable_bytes=t4.usable_bytes,
        mig_parent=parent,
    )
    candidates = (Candidate(gpu_type=odd, need_bytes=MIB), *gpus(nvidia_t4=8459))
    asked = Wanted(candidates=candidates, reason=reason)
    for scheduler in DIALECTS:
        text = render(scheduler, asked)
        text.encode()
        check_shape(scheduler, text)


def check_shape(scheduler: Scheduler, text: str) -> None:
    """The lines, keys and values that a request of this dialect may have, and no others."""
    assert text.startswith("# memplan:")
    lines = [line for line in text.split("\n") if line and not line.startswith("# ")]
    if scheduler in OF_KUBERNETES:
        for data in yaml.safe_load_all(text):
            kubernetes_validate.validate(data, NEWEST, strict=True)
    elif scheduler is Scheduler.SLURM:
        options = [shlex.split(line.lstrip("#"))[1:] for line in lines]
        assert [o[0].partition("=")[0] for o in options] == ["--gres", "--constraint", "--extra"]
        assert all(len(o) == 1 for o in options)
    elif scheduler is Scheduler.HTCONDOR:
        keys = [line.partition(" = ")[0] for line in lines]
        assert keys == [
            "request_gpus",
            "gpus_minimum_memory",
            "require_gpus",
            "environment",
            "queue 1",
        ]
        assert "$" not in lines[2]
        assert lines[2].count('"') % 2 == 0
    elif scheduler is Scheduler.RAY:
        assert [type(node) for node in ast.parse(text).body] == [ast.Assign, ast.Assign]
    else:
        assert set(yaml.safe_load(text)) == {"num_nodes", "resources", "envs"}


TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\x85\u2028\ufeff:#'\"\\\n"))
LEAF = TEXT | st.integers() | st.booleans()
MAPPING = st.recursive(
    st.dictionaries(TEXT, LEAF, max_size=3),
    lambda inner: st.dictionaries(TEXT, LEAF | inner | st.lists(LEAF | inner, max_size=3)),
    max_leaves=8,
)


@given(MAPPING)
@settings(max_examples=100, deadline=None)
def test_yaml_is_read_as_it_was_meant(data: dict[str, Any]) -> None:
    assert (yaml.safe_load(documents(data)) or {}) == data


@given(st.text())
def test_a_comment_is_one_line(text: str) -> None:
    line = comment(text)
    assert len(line.splitlines()) == 1
    assert line.startswith("# ")
    assert yaml.safe_load(line) is None


def answer(
    *verdicts: tuple[str, Verdict], plan: AccumulationPlan | None = None
) -> tuple[PlanJobResponse, list[GpuType]]:
    placements = tuple(
        Placement(
            gpu=GpuTarget(gpu_type=name),
            verdict=verdict,
            capacity_bytes=10 * MIB,
            upper_bound_bytes=5 * MIB,
            reason=f"{name} said so.",
        )
        for name, verdict in verdicts
    )
    response = PlanJobResponse(placements=placements, accumulation=plan)
    return response, [CATALOG.get(name) for name, _ in verdicts]


JOB = TrainingJob(micro_batch_size=64, loop=TrainingLoop(accumulation_steps=2))


def test_what_fits_for_sure_is_asked_for_in_the_order_given() -> None:
    response, types = answer(
        ("nvidia-l4", Verdict.UNCERTAIN), ("nvidia-t4", Verdict.FITS), ("nvidia-a10", Verdict.FITS)
    )
    found = wanted(PlanJobRequest(job=JOB, data_parallel_size=4), response, types)
    assert [c.gpu_type.name for c in found.candidates] == ["nvidia-t4", "nvidia-a10"]
    assert [c.need_mib for c in found.candidates] == [5, 5]
    assert found.rank_count == 4
    assert found.environment == {
        "MEMPLAN_MICRO_BATCH_SIZE": "64",
        "MEMPLAN_ACCUMULATION_STEPS": "2",
    }


def test_where_it_fits_nowhere_the_reasons_are_given() -> None:
    response, types = answer(("nvidia-l4", Verdict.UNCERTAIN), ("nvidia-t4", Verdict.DOES_NOT_FIT))
    found = wanted(PlanJobRequest(job=JOB), response, types)
    assert found.candidates == ()
    assert "nvidia-l4 said so." in found.reason
    assert "nvidia-t4 said so." in found.reason


def test_a_global_batch_is_asked_for_with_the_plans_micro_batches_on_its_gpu() -> None:
    plan = AccumulationPlan(feasible=True, micro_batch_size=96, accumulation_steps=11)
    response, types = answer(
        ("nvidia-t4", Verdict.DOES_NOT_FIT), ("nvidia-a10", Verdict.FITS), plan=plan
    )
    found = wanted(PlanJobRequest(job=JOB, global_batch_size=1056), response, types)
    [candidate] = found.candidates
    assert (candidate.gpu_type.name, candidate.need_mib) == ("nvidia-t4", 10)
    assert found.environment["MEMPLAN_MICRO_BATCH_SIZE"] == "96"
    assert found.environment["MEMPLAN_ACCUMULATION_STEPS"] == "11"


def test_a_global_batch_without_a_plan_is_no_request() -> None:
    plan = AccumulationPlan(feasible=False, reason="Not even one sample fits.")
    response, types = answer(("nvidia-t4", Verdict.FITS), plan=plan)
    found = wanted(PlanJobRequest(job=JOB, global_batch_size=1056), response, types)
    assert (found.candidates, found.reason) == ((), "Not even one sample fits.")


if __name__ == "__main__":
    for one in DIALECTS:
        (FILES / f"{one.value}.txt").write_text(render(one, USUAL))
