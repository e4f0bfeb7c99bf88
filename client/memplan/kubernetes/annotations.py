"""What an object says of itself in its annotations.

metadata:
  annotations:
    memplan.dev/job: |            # a job file, docs/job-file.md
      model: torchvision/resnet50
      batch_size: 64
    memplan.dev/placement: affinity
    memplan.dev/policy: reject
    memplan.dev/container: trainer
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from memplan import jobfile
from memplan.errors import InvalidRequestError, JobFileError
from memplan.types import GpuTarget, PlanJobRequest

__all__ = [
    "AnnotationError",
    "Annotations",
    "Placing",
    "Policy",
    "asked",
    "mistakes",
    "read",
    "selected",
    "without_sharing",
]

PREFIX = "memplan.dev/"
JOB = f"{PREFIX}job"
PLACEMENT = f"{PREFIX}placement"
POLICY = f"{PREFIX}policy"
CONTAINER = f"{PREFIX}container"
PLANNED = f"{PREFIX}planned"
VERDICT = f"{PREFIX}verdict"
GPU_TYPE = f"{PREFIX}gpu-type"
EXPECTED = f"{PREFIX}expected-memory"
UPPER_BOUND = f"{PREFIX}upper-bound"
REASON = f"{PREFIX}reason"
JOB_DIGEST = f"{PREFIX}job-digest"
CLAIM_TEMPLATE = f"{PREFIX}resource-claim-template"
PRODUCT = "nvidia.com/gpu.product"
"""The label of nodes that names their GPUs."""
READ = (JOB, PLACEMENT, POLICY, CONTAINER)
"""Those that people write."""
LONGEST_JOB = 64 << 10
"""Longer ones take so long to read that others would wait."""
_MIG = re.compile(r"[- ]mig[- ]", re.IGNORECASE)
"""In the name, and in every alias, of each MIG profile of the catalog."""

E = TypeVar("E", bound=StrEnum)


class AnnotationError(ValueError):
    """An annotation is wrong, named with what to do."""


class Policy(StrEnum):
    """What becomes of a job that fits on no GPU asked about, or is described wrongly."""

    WARN = "warn"
    """It is admitted with warnings."""
    REJECT = "reject"
    """It is rejected."""


class Placing(StrEnum):
    """How GPUs are asked for."""

    AFFINITY = "affinity"
    """Whole GPUs: node affinity and the resource `nvidia.com/gpu`."""
    MIG = "mig"
    """A MIG profile: node affinity and its own resource."""
    DRA = "dra"
    """Dynamic resource allocation: a claim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """The annotations that people write."""

    job: str
    """The text of the job file."""
    placing: Placing | None = None
    """None: as it is set for the cluster."""
    policy: Policy | None = None
    """None: as it is set for the namespace or the cluster."""
    container: str = ""
    """Name of the container that trains. Empty: the first that asks for a GPU, else the first."""

    @property
    def digest(self) -> str:
        """The same for all objects that are to be planned alike."""
        text = json.dumps([self.job, self.placing, self.container])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def mistakes(error: Exception) -> str:
    """What is wrong with a job: of what the service refused, every place in a line of its own."""
    if isinstance(error, JobFileError) or not isinstance(error, InvalidRequestError):
        return str(error)
    lines = [f"{one.field.removeprefix('job.')}: {one.description}" for one in error.violations]
    return "\n".join([f"{JOB} is wrong:", *lines]) if lines else str(error)


def read(annotations: Mapping[str, str]) -> Annotations | None:
    """The annotations of an object; None where it names no job. Raises AnnotationError."""
    if JOB not in annotations:
        return None
    return Annotations(
        job=annotations[JOB],
        placing=_member(Placing, annotations, PLACEMENT),
        policy=_member(Policy, annotations, POLICY),
        container=annotations.get(CONTAINER, ""),
    )


def _member(kind: type[E], annotations: Mapping[str, str], name: str) -> E | None:
    text = annotations.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError as error:
        raise AnnotationError(f"{name} is {text!r}, not one of {', '.join(kind)}.") from error


def selected(spec: Mapping[str, Any]) -> str:
    """The GPU that a Pod's node selector asks for, as NVML calls it; empty for any."""
    selector = spec.get("nodeSelector")
    product = selector.get(PRODUCT) if isinstance(selector, Mapping) else None
    return without_sharing(product) if isinstance(product, str) else ""


def without_sharing(product: str) -> str:
    """The value of the label without what it has for GPUs whose time is shared."""
    return product.removesuffix("-SHARED")


def asked(
    annotations: Annotations, gpus: Sequence[GpuTarget], placing: Placing, product: str = ""
) -> tuple[PlanJobRequest, Placing]:
    """What to ask the service, and how GPUs are asked for.

    `gpus` and `placing` are those of the cluster, for jobs that name none; a `product` is the only
    GPU that the job will get, whatever it names. Raises AnnotationError, and JobFileError with
    every mistake in the job file.
    """
    if len(annotations.job) > LONGEST_JOB:
        raise AnnotationError(f"{JOB} is longer than {LONGEST_JOB >> 10} KiB.")
    request = jobfile.parse(annotations.job, source=JOB, files=False)
    gpus = request.gpus or tuple(gpus)
    slices = tuple(gpu for gpu in gpus if _MIG.search(gpu.gpu_type))
    whole = tuple(gpu for gpu in gpus if gpu not in slices)
    if annotations.placing is not None:
        placing = annotations.placing
    elif placing is not Placing.DRA and bool(slices) != bool(whole):
        placing = Placing.MIG if slices else Placing.AFFINITY  # nothing else is named
    if placing is not Placing.DRA:
        gpus = _of_kind(placing, slices, whole)
    if product and placing is not Placing.MIG:  # the product of a slice is the whole GPU's
        gpus = (GpuTarget(gpu_type=product),)
    return replace(request, gpus=gpus, measurement_budget=None), placing


def _of_kind(
    placing: Placing, slices: tuple[GpuTarget, ...], whole: tuple[GpuTarget, ...]
) -> tuple[GpuTarget, ...]:
    """The GPUs that can be asked for so; none are all whole ones of the catalog."""
    if placing is Placing.MIG and not slices:
        raise AnnotationError(
            f"{PLACEMENT}: mig needs MIG profiles: name them in the job file, such as "
            "gpus: [nvidia-a100-40gb-mig-3g.20gb], the smallest first."
        )
    if placing is Placing.AFFINITY and slices and not whole:
        raise AnnotationError(
            f"{PLACEMENT}: affinity asks for whole GPUs, but only MIG profiles are named: say mig."
        )
    return slices if placing is Placing.MIG else whole
