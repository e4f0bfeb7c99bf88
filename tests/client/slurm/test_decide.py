"""What becomes of a job: placements beside the GPUs of a cluster."""

from __future__ import annotations

from memplan.slurm.decide import Decision, Judged, decide, judge
from memplan.slurm.inventory import Kind, Node
from memplan.types import (
    AccumulationPlan,
    BatchSizeRecommendation,
    GpuTarget,
    Placement,
    PlanJobResponse,
    Remedy,
    TrainingJob,
    Verdict,
)

JOB = TrainingJob(micro_batch_size=64)
GIB = 1 << 30


def kind(gres_type: str, gpu_type: str, *nodes: str, features: str = "") -> Kind:
    made = [
        Node(
            name=name,
            partitions=frozenset({"gpu"}),
            gres_types=(gres_type,),
            features=frozenset(filter(None, features.split(","))),
        )
        for name in nodes
    ]
    return Kind(gres_type=gres_type, gpu_type=gpu_type, nodes=tuple(made))


T4 = kind("t4", "nvidia-t4", "n1", features="all,small")
A10 = kind("a10", "nvidia-a10", "n2", features="all,middle")
A100 = kind("a100", "nvidia-a100-40gb", "n3", "n4", features="all,large")
SIZES = {"nvidia-t4": 15 * GIB, "nvidia-a10": 22 * GIB, "nvidia-a100-40gb": 40 * GIB}


def plan(*kinds: Kind, fits: str = "", may: str = "") -> tuple[Judged, PlanJobResponse]:
    """A plan in which the job fits on some GRES types, may fit on some, and on no other."""
    placements = []
    for one in kinds:
        if not one.gpu_type:
            continue
        verdict = Verdict.DOES_NOT_FIT
        verdict = Verdict.FITS if one.gres_type in fits.split() else verdict
        verdict = Verdict.UNCERTAIN if one.gres_type in may.split() else verdict
        placements.append(
            Placement(
                gpu=GpuTarget(gpu_type=one.gpu_type),
                verdict=verdict,
                capacity_bytes=SIZES[one.gpu_type],
                reason=f"Because of {one.gres_type}.",
                remedies=(
                    Remedy(description="fits with micro-batch 8 x 8 steps", micro_batch_size=8),
                    Remedy(description="fits on nvidia-h200", gpu_type="nvidia-h200"),
                ),
            )
        )
    answer = PlanJobResponse(
        placements=tuple(placements),
        batch_sizes=tuple(
            BatchSizeRecommendation(gpu=p.gpu, recommended_batch_size=96) for p in placements
        ),
    )
    return judge(kinds, answer), answer


def decided(
    *kinds: Kind,
    fits: str = "",
    may: str = "",
    accumulation: AccumulationPlan | None = None,
    **asked: str,
) -> Decision:
    judged, answer = plan(*kinds, fits=fits, may=may)
    return decide(asked, JOB, judged, answer, accumulation)


def test_the_one_type_on_which_it_fits_is_asked_for() -> None:
    found = decided(T4, A100, fits="a100", tres_per_node="gres:gpu:2")
    assert found.changes == {"tres_per_node": "gres:gpu:a100:2"}
    assert found.messages[0] == "nvidia-a100-40gb: Because of a100."
    assert found.messages[-1] == "Recommended there: batch 96."
    assert found.note.startswith("FITS nvidia-a100-40gb")


def test_where_it_fits_everywhere_nothing_changes() -> None:
    assert decided(T4, A100, fits="t4 a100", tres_per_job="gres:gpu:1").changes == {}


def test_who_asks_for_no_gpu_gets_one() -> None:
    assert decided(T4, A100, fits="t4 a100").changes == {"gres": "gpu:1"}
    assert decided(T4, A100, fits="a100").changes == {"gres": "gpu:a100:1"}


def test_several_types_are_asked_for_by_their_features() -> None:
    found = decided(T4, A10, A100, fits="a10 a100", tres_per_node="gres:gpu:1")
    assert found.changes == {"features": "middle|large"}


def test_beside_features_of_ones_own_other_nodes_are_excluded() -> None:
    found = decided(
        T4, A10, A100, fits="a10 a100", tres_per_node="gres:gpu:1", features="all", exc_nodes="n9"
    )
    assert found.changes == {"exc_nodes": "n9,n1"}


def test_gpus_without_types_are_told_apart_by_node() -> None:
    small, large = kind("", "nvidia-t4", "n1"), kind("", "nvidia-a10", "n2")
    placements = tuple(
        Placement(gpu=GpuTarget(gpu_type=k.gpu_type), verdict=v, capacity_bytes=1)
        for k, v in ((small, Verdict.DOES_NOT_FIT), (large, Verdict.FITS))
    )
    answer = PlanJobResponse(placements=placements)
    found = decide(
        {"tres_per_node": "gres:gpu:1"}, JOB, judge((small, large), answer), answer, None
    )
    assert found.changes == {"exc_nodes": "n1"}


def test_it_is_refused_where_no_gpu_holds_it_with_what_would_help_here() -> None:
    refusal = decided(T4, A100, tres_per_node="gres:gpu:1").refusal
    assert refusal.startswith("It does not fit on any GPU here. nvidia-a100-40gb: Because of a100.")
    assert "It fits with micro-batch 8 x 8 steps." in refusal
    assert "h200" not in refusal  # there is none


def test_the_type_asked_for_decides() -> None:
    asked = {"tres_per_node": "gres:gpu:t4:1"}
    assert "It fits on gpu:a100." in decided(T4, A100, fits="a100", **asked).refusal
    assert decided(T4, A100, fits="t4 a100", **asked).changes == {}
    uncertain = decided(T4, A100, fits="a100", may="t4", **asked)
    assert (uncertain.refusal, uncertain.changes) == ("", {})
    assert uncertain.messages[0] == "nvidia-t4: Because of t4."


def test_an_unknown_gpu_may_hold_anything() -> None:
    unknown = kind("new", "", "n7")
    found = decided(T4, unknown, tres_per_node="gres:gpu:1")
    assert (found.refusal, found.changes) == ("", {})
    assert not decided(T4, unknown, tres_per_node="gres:gpu:new:1").refusal


def test_where_it_only_may_fit_it_may_run_with_a_warning() -> None:
    found = decided(T4, A100, may="a100", tres_per_node="gres:gpu:1")
    assert found.changes == {"tres_per_node": "gres:gpu:a100:1"}
    assert "It fits with micro-batch 8 x 8 steps." in found.messages


def test_the_environment_is_the_jobs_or_the_accumulation_plans() -> None:
    assert decided(T4, fits="t4").environment == {
        "MEMPLAN_MICRO_BATCH_SIZE": "64",
        "MEMPLAN_ACCUMULATION_STEPS": "1",
    }
    steps = AccumulationPlan(feasible=True, micro_batch_size=32, accumulation_steps=9)
    assert decided(T4, fits="t4", accumulation=steps).environment == {
        "MEMPLAN_MICRO_BATCH_SIZE": "32",
        "MEMPLAN_ACCUMULATION_STEPS": "9",
    }
