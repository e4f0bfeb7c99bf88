"""What the service says of a job becomes what its object is to ask for."""

from __future__ import annotations

from typing import Any, cast

from memplan.client import Client
from memplan.kubernetes.annotations import Placing
from memplan.kubernetes.plans import Plan, make
from memplan.types import (
    AccumulationPlan,
    GpuTarget,
    Placement,
    PlanJobRequest,
    PlanJobResponse,
    Remedy,
    Scheduler,
    TrainingJob,
    Verdict,
)
from memplan_server.dialects import render, wanted
from memplan_server.gpus.catalog import GpuCatalog

CATALOG = GpuCatalog.load()
T4, A100 = "nvidia-t4", "nvidia-a100-40gb"
JOB = TrainingJob(micro_batch_size=64)


class FakeClient:
    """A service that finds jobs to fit as it is told, and writes requests as the real one does."""

    def __init__(self, *, feasible: bool = True, **verdicts: Verdict) -> None:
        self.verdicts = {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
        self.feasible = feasible
        self.schedulers: list[Scheduler] = []

    def plan_job(self, job: TrainingJob, gpus: tuple[GpuTarget, ...], **options: Any) -> Any:
        self.schedulers.append(options["scheduler"])
        del options["timeout"]
        types = [CATALOG.get(gpu.gpu_type) for gpu in gpus]
        placements = tuple(
            Placement(
                gpu=GpuTarget(gpu_type=g.name),
                verdict=self.verdicts[g.name],
                capacity_bytes=g.usable_bytes,
                device_used_bytes=1 << 30,
                upper_bound_bytes=2 << 30,
                reason="Because.",
                remedies=(
                    Remedy(description="fits with micro-batch 8 x 8 steps"),
                    Remedy(description="fits on nvidia-h200", gpu_type="nvidia-h200"),
                ),
            )
            for g in types
        )
        accumulation = AccumulationPlan(
            feasible=self.feasible,
            micro_batch_size=32,
            accumulation_steps=8,
            device_used_bytes=3 << 30,
            reason="Eight times 32." if self.feasible else "Not even one sample fits.",
        )
        answer = PlanJobResponse(
            placements=placements,
            accumulation=accumulation if options["global_batch_size"] else None,
        )
        request = PlanJobRequest(job=job, gpus=gpus, **options)
        text = render(options["scheduler"], wanted(request, answer, types))
        return PlanJobResponse(
            placements=placements,
            accumulation=answer.accumulation,
            scheduler_request=text,
        )


def made(
    client: FakeClient, *gpus: str, batch: int = 0, placing: Placing = Placing.AFFINITY
) -> Plan:
    request = PlanJobRequest(
        job=JOB, gpus=tuple(GpuTarget(gpu_type=g) for g in gpus), global_batch_size=batch
    )
    return make(cast(Client, client), request, placing)


def test_the_smallest_gpu_on_which_it_fits_is_spoken_of_and_all_are_asked_for() -> None:
    client = FakeClient(nvidia_t4=Verdict.FITS, nvidia_a100_40gb=Verdict.FITS)
    plan = made(client, "NVIDIA-A100-SXM4-40GB", "Tesla-T4")
    assert (plan.verdict, plan.gpu_type, plan.asked_as) == (Verdict.FITS, T4, "Tesla-T4")
    assert plan.reason == "nvidia-t4: Because."
    assert plan.advice == ()
    assert plan.request is not None
    assert {"Tesla-T4", "NVIDIA-A100-SXM4-40GB"} <= set(plan.request.products)
    assert plan.environment["MEMPLAN_MICRO_BATCH_SIZE"] == "64"


def test_where_it_only_may_fit_nothing_is_asked_for() -> None:
    client = FakeClient(nvidia_t4=Verdict.DOES_NOT_FIT, nvidia_a100_40gb=Verdict.UNCERTAIN)
    plan = made(client, T4, A100)
    assert (plan.verdict, plan.gpu_type, plan.request) == (Verdict.UNCERTAIN, A100, None)
    assert plan.advice == (
        "It fits for sure on no GPU asked about, so none is asked for.",
        "It fits with micro-batch 8 x 8 steps.",
    )
    assert plan.environment


def test_where_it_fits_nowhere_the_largest_says_why() -> None:
    client = FakeClient(nvidia_t4=Verdict.DOES_NOT_FIT, nvidia_a100_40gb=Verdict.DOES_NOT_FIT)
    plan = made(client, A100, T4)
    assert plan.reason == f"It does not fit on any GPU asked about. {A100}: Because."
    assert plan.advice == ("It fits with micro-batch 8 x 8 steps.",)  # there is no H200 here
    assert (plan.request, plan.environment) == (None, {})


def test_micro_batches_that_fit_make_a_job_fit() -> None:
    for verdict in (Verdict.FITS, Verdict.UNCERTAIN, Verdict.DOES_NOT_FIT):
        client = FakeClient(nvidia_t4=Verdict.DOES_NOT_FIT, nvidia_a100_40gb=verdict)
        plan = made(client, T4, A100, batch=256)
        assert (plan.verdict, plan.gpu_type, plan.advice) == (Verdict.FITS, A100, ())
        assert plan.reason == f"{A100}: micro-batch 32 x 8 steps. Eight times 32."
        assert plan.environment == {
            "MEMPLAN_MICRO_BATCH_SIZE": "32",
            "MEMPLAN_ACCUMULATION_STEPS": "8",
        }
        assert plan.request is not None
        assert "Tesla-T4" not in plan.request.products
        assert plan.upper_bound_bytes == CATALOG.get(A100).usable_bytes


def test_without_micro_batches_that_fit_nothing_is_asked_for() -> None:
    client = FakeClient(feasible=False, nvidia_t4=Verdict.DOES_NOT_FIT)
    plan = made(client, T4, batch=256)
    assert (plan.verdict, plan.request) == (Verdict.DOES_NOT_FIT, None)
    assert plan.advice[-1] == "Not even one sample fits."


def test_claims_are_written_by_the_service_too() -> None:
    client = FakeClient(nvidia_t4=Verdict.FITS)
    plan = made(client, T4, placing=Placing.DRA)
    assert client.schedulers == [Scheduler.DRA]
    assert plan.request is not None
    assert plan.request.claim_template.startswith("apiVersion: resource.k8s.io/v1\n")
