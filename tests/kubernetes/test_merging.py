"""Whatever the user wrote stays, what is merged twice is there once, and patches say just that."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memplan.kubernetes import annotations as names
from memplan.kubernetes.annotations import AnnotationError, Annotations, Placing, asked, read
from memplan.kubernetes.merging import gpu_resources
from memplan.kubernetes.objects import KINDS, planned
from memplan.kubernetes.patch import difference
from memplan.kubernetes.plans import Plan, Request, parse_request
from memplan.types import GpuTarget, Scheduler, Verdict
from memplan_server.dialects import Candidate, Wanted, render
from memplan_server.gpus.catalog import GpuCatalog

CATALOG = GpuCatalog.load()
SLICE, OTHER_SLICE = "nvidia-a100-40gb-mig-1g.5gb", "nvidia-a100-40gb-mig-3g.20gb"
GPU_SETS = [["nvidia-t4"], ["nvidia-a100-40gb", "nvidia-t4"], [SLICE]]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0])
    | st.text("a~/", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("a~/0", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
Object = dict[str, Any]


def rendered(gpus: list[str], scheduler: Scheduler = Scheduler.KUBERNETES) -> Request:
    """What the service writes for some GPUs."""
    candidates = tuple(Candidate(gpu_type=CATALOG.get(g), need_bytes=3 << 30) for g in gpus)
    request = parse_request(render(scheduler, Wanted(candidates=candidates, reason="It fits.")))
    assert request is not None
    return request


REQUESTS = [rendered(g, s) for g in GPU_SETS for s in (Scheduler.KUBERNETES, Scheduler.DRA)]

WHOLE = rendered(["nvidia-a100-40gb", "nvidia-t4"])
FOUR_GPUS = {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "4"}}}]}
ZONE_A = {"key": "zone", "operator": "In", "values": ["a"]}
LAST_OF_WHOLE = {
    "metadata.name": "n",
    "zone": "a",
    "nvidia.com/gpu.product": "Tesla-T4",
    "nvidia.com/gpu.memory": "15360",
}


def plan_for(request: Request | None) -> Plan:
    return Plan(
        verdict=Verdict.FITS,
        gpu_type="nvidia-t4",
        asked_as="nvidia-t4",
        expected_bytes=1,
        upper_bound_bytes=2,
        reason="It fits.",
        environment={"MEMPLAN_MICRO_BATCH_SIZE": "64", "MEMPLAN_ACCUMULATION_STEPS": "2"},
        request=request,
    )


expressions = st.lists(
    st.sampled_from(
        [
            ZONE_A,
            {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["9"]},
            *(e for r in REQUESTS for term in r.terms for e in term["matchExpressions"]),
        ]
    ),
    max_size=3,
)
terms = st.fixed_dictionaries(
    {},
    optional={
        "matchExpressions": expressions,
        "matchFields": st.just([{"key": "metadata.name", "operator": "In", "values": ["n"]}]),
    },
)
affinities = st.fixed_dictionaries(
    {},
    optional={
        "podAffinity": st.just({}),
        "nodeAffinity": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "preferredDuringSchedulingIgnoredDuringExecution": st.just([]),
                "requiredDuringSchedulingIgnoredDuringExecution": st.none()
                | st.fixed_dictionaries({"nodeSelectorTerms": st.lists(terms, max_size=3)}),
            },
        ),
    },
)
quantities = st.dictionaries(
    st.sampled_from(["cpu", "nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/gpumem"]),
    st.sampled_from(["1", "4"]),
    max_size=2,
)
resources = st.fixed_dictionaries(
    {},
    optional={
        "limits": st.none() | quantities,
        "requests": quantities,
        "claims": st.lists(st.sampled_from([{"name": "gpu"}, {"name": "nic"}]), max_size=2),
    },
)
containers = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b"]), "image": st.just("train:1")},
    optional={
        "resources": st.none() | resources,
        "env": st.lists(
            st.sampled_from(
                [
                    {"name": "EPOCHS", "value": "9"},
                    {"name": "MEMPLAN_MICRO_BATCH_SIZE", "value": "8"},
                    {"name": "MEMPLAN_ACCUMULATION_STEPS", "valueFrom": {"fieldRef": {}}},
                ]
            ),
            max_size=2,
        ),
    },
)
specs = st.fixed_dictionaries(
    {"containers": st.lists(containers, min_size=1, max_size=3)},
    optional={
        "affinity": st.none() | affinities,
        "tolerations": st.lists(
            st.sampled_from([{"operator": "Exists"}, *REQUESTS[0].tolerations]), max_size=2
        ),
        "resourceClaims": st.lists(
            st.sampled_from([{"name": "gpu", "resourceClaimName": "mine"}, {"name": "nic"}]),
            max_size=2,
        ),
        "nodeSelector": st.just({"pool": "gpu"}),
    },
)
written = {names.JOB: "model: any\nbatch_size: 64\n", "team": "vision"}
pods = st.builds(lambda s: {"metadata": {"annotations": dict(written)}, "spec": s}, specs)
objects = st.one_of(
    st.tuples(st.just("/v1/Pod"), pods),
    st.tuples(
        st.just("batch/v1/Job"),
        st.builds(
            lambda s: {
                "metadata": {"annotations": dict(written)},
                "spec": {"template": {"spec": s}},
            },
            specs,
        ),
    ),
    st.tuples(
        st.just("trainer.kubeflow.org/v1alpha1/TrainJob"),
        st.builds(
            lambda r: {
                "metadata": {"annotations": dict(written)},
                "spec": {"trainer": {"resourcesPerNode": r}},
            },
            resources,
        ),
    ),
)


def kept(before: Any, after: Any, path: str = "") -> bool:
    """Whether all that was there is there: members, and items in their order among others.

    An absent member is the same as one that is null. Terms of node affinity are alternatives, and
    each may have become several that say more.
    """
    if before is None:
        return True
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            kept(value, after.get(key), f"{path}/{key}") for key, value in before.items()
        )
    if path.endswith("/nodeSelectorTerms"):
        return [old for old in before if not any(kept(old, new) for new in after)] == [] and all(
            any(kept(old, new) for old in before) for new in after
        )
    if isinstance(before, list):
        remaining = iter(after or [])
        return all(any(kept(old, new) for new in remaining) for old in before)
    return bool(before == after)


@settings(max_examples=80, deadline=None)
@given(objects, st.sampled_from([*REQUESTS, None]))
@example(("/v1/Pod", {"metadata": {"annotations": dict(written)}, "spec": FOUR_GPUS}), WHOLE)
def test_nothing_of_the_users_is_lost_and_twice_is_as_once(
    kind_and_item: tuple[str, Object], request: Request | None
) -> None:
    kind, item = kind_and_item
    original = copy.deepcopy(item)
    own = Annotations(job=written[names.JOB])
    once, _ = planned(item, kind, own, plan_for(request))
    assert item == original
    assert kept(item, once)
    twice, _ = planned(once, kind, own, plan_for(request))
    assert twice == once
    assert jsonpatch.JsonPatch(difference(item, once)).apply(item) == once


nodes = st.fixed_dictionaries(
    {"metadata.name": st.sampled_from(["n", "m"])},
    optional={
        "zone": st.sampled_from(["a", "b"]),
        "nvidia.com/gpu.product": st.sampled_from(["Tesla-T4", "NVIDIA-A100-SXM4-40GB", "X"]),
        "nvidia.com/gpu.memory": st.sampled_from(["8", "10", "15360"]),
        "nvidia.com/mig-1g.5gb.memory": st.sampled_from(["10", "4864"]),
    },
)


def admitted(terms_: list[Object], node: dict[str, str]) -> bool:
    """As Kubernetes decides: any term, all of its expressions; an empty one applies to no node."""

    def applies(expression: Object) -> bool:
        value = node.get(expression["key"])
        if expression["operator"] == "Gt":
            return value is not None and int(value) > int(expression["values"][0])
        return value in expression["values"]

    parts = [
        [*(term.get("matchExpressions") or []), *(term.get("matchFields") or [])] for term in terms_
    ]
    return any(part and all(map(applies, part)) for part in parts)


@settings(max_examples=80, deadline=None)
@given(st.none() | st.lists(terms, max_size=3), st.sampled_from(REQUESTS), nodes)
@example([{"matchExpressions": [ZONE_A]}], WHOLE, LAST_OF_WHOLE)
def test_a_node_suits_both_the_user_and_the_plan(
    theirs: list[Object] | None, request: Request, node: dict[str, str]
) -> None:
    spec: Object = {"containers": [{"name": "a"}]}
    if theirs is not None:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": theirs}}
        spec["affinity"] = {"nodeAffinity": required}
    pod = {"metadata": {"annotations": dict(written)}, "spec": spec}
    after, _ = planned(pod, "/v1/Pod", Annotations(job=""), plan_for(request))
    found = (after["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    now = found.get("requiredDuringSchedulingIgnoredDuringExecution")
    suits = theirs is None or admitted(theirs, node)
    suits = suits and (not request.terms or admitted(list(request.terms), node))
    assert (now is None or admitted(now["nodeSelectorTerms"], node)) == suits


@settings(max_examples=80, deadline=None)
@given(specs, st.sampled_from(REQUESTS))
def test_a_container_asks_for_one_kind_of_gpu(spec: Object, request: Request) -> None:
    pod = {"metadata": {"annotations": dict(written)}, "spec": spec}
    after, notes = planned(pod, "/v1/Pod", Annotations(job=""), plan_for(request))
    for before, now in zip(spec["containers"], after["spec"]["containers"], strict=True):
        own = gpu_resources(before.get("resources") or {})
        found = gpu_resources(now.get("resources") or {})
        assert own <= found
        assert found == own or len(found) == 1 or own == {"claims"}
    if any("not added" in note for note in notes):
        assert after["spec"].get("affinity") == spec.get("affinity")
        assert after["spec"].get("resourceClaims") == spec.get("resourceClaims")


def test_the_properties_can_fail() -> None:
    assert not kept({"a": [1, 2]}, {"a": [2]})
    assert not kept({"a": {"b": 1}}, {"a": {}})
    assert not kept({"nodeSelectorTerms": [{"x": 1}]}, {"nodeSelectorTerms": [{"x": 1}, {}]})


@settings(max_examples=100, deadline=None)
@given(JSON, JSON)
def test_a_patch_makes_the_one_of_the_other(before: Any, after: Any) -> None:
    patch = jsonpatch.JsonPatch(difference(before, after))
    found = patch.apply(copy.deepcopy(before))
    assert json.dumps(found, sort_keys=True) == json.dumps(after, sort_keys=True)  # 1 is not true
    assert {operation["op"] for operation in patch} <= {"add", "replace"}


def test_kinds_are_those_of_the_webhooks_rules() -> None:
    assert {kind.rpartition("/")[2] for kind in KINDS} == {"Pod", "Job", "TrainJob"}


def targets(*gpus: str) -> tuple[GpuTarget, ...]:
    return tuple(GpuTarget(gpu_type=g) for g in gpus)


def ask(cluster: tuple[GpuTarget, ...], text: str = "", **more: str) -> tuple[list[str], Placing]:
    own = read(
        {names.JOB: f"model: any\nbatch_size: 1\n{text}"}
        | {names.PREFIX + k: v for k, v in more.items()}
    )
    assert own is not None
    request, placing = asked(own, cluster, Placing.AFFINITY)
    return [gpu.gpu_type for gpu in request.gpus], placing


def test_gpus_are_the_jobs_or_else_the_clusters() -> None:
    cluster = targets("nvidia-t4", SLICE, "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb")
    assert ask(()) == ([], Placing.AFFINITY)
    assert ask(cluster) == (["nvidia-t4"], Placing.AFFINITY)
    assert ask(cluster, placement="mig")[0] == [SLICE, "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"]
    assert ask(cluster, "gpus: [nvidia-l4]") == (["nvidia-l4"], Placing.AFFINITY)
    assert ask(cluster, f"gpus: [{SLICE}]") == ([SLICE], Placing.MIG)
    assert ask(targets(SLICE)) == ([SLICE], Placing.MIG)
    assert ask(cluster, placement="dra")[0] == [gpu.gpu_type for gpu in cluster]
    with pytest.raises(AnnotationError, match="only MIG profiles are named"):
        ask(cluster, f"gpus: [{SLICE}]", placement="affinity")


def test_claims_of_other_needs_have_other_names() -> None:
    first, other = (rendered(g, Scheduler.DRA) for g in (["nvidia-t4"], ["nvidia-a100-40gb"]))
    assert first.resource_claims != other.resource_claims
    assert rendered(["nvidia-t4"], Scheduler.DRA) == first


def test_a_request_that_is_only_a_comment_is_none() -> None:
    assert parse_request(render(Scheduler.KUBERNETES, Wanted(reason="It fits nowhere."))) is None
