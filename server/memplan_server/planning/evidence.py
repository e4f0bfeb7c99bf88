"""What a measured profile says of a GPU that was planned for.

    evidence = Evidence.of(profile, target)
    evidence.finding            # FITS, DOES_NOT_FIT or NOTHING

A measurement decides about its own micro-batch size on its own GPU type. Of other micro-batch sizes
it says one thing: what does not fit does not fit with more samples either.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from memplan.types import DataParallelStrategy, DeviceType, MeasuredProfile, TrainingJob
from memplan_server.gpus.libraries import COMMUNICATION_BYTES
from memplan_server.planning.probe import Probe, largest
from memplan_server.planning.targets import Target, Timelines
from memplan_server.planning.text import gib

__all__ = ["Evidence", "Finding", "below", "described"]

_SAME = 0.98
"""GPUs of one type differ by some per mille in memory, from driver to driver; a limit above this
share of a capacity counts as that capacity."""


class Finding(Enum):
    """What follows for the micro-batch size that was measured."""

    FITS = auto()
    DOES_NOT_FIT = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Evidence:
    """One profile held against one GPU."""

    profile: MeasuredProfile
    finding: Finding
    needed_bytes: int
    """Device-used bytes; of a run that ran out of memory, what it needed at least."""
    why: str
    """The finding in a sentence."""

    @classmethod
    def of(cls, profile: MeasuredProfile, target: Target) -> Evidence:
        """What `profile` says of `target`."""
        if profile.device_type is not DeviceType.CUDA:
            return cls(profile, Finding.NOTHING, 0, _NOT_A_GPU)
        if profile.gpu_type != target.gpu_type.name:
            return cls(profile, Finding.NOTHING, 0, _another(profile, target))
        if profile.out_of_memory:
            return _out_of_memory(profile, target)
        return _ran(profile, target)

    def says_that_it_fits(self, job: TrainingJob) -> bool:
        """Whether the job, as it is, was seen to fit. With accumulation it takes no less."""
        return (
            self.finding is Finding.FITS
            and self.profile.micro_batch_size == job.micro_batch_size
            and (_accumulates(self.profile.job) or not _accumulates(job))
        )

    def says_that_it_does_not_fit(self, job: TrainingJob) -> bool:
        """Whether the job takes no less than what was seen not to fit."""
        return (
            self.finding is Finding.DOES_NOT_FIT
            and self.profile.micro_batch_size <= job.micro_batch_size
            and (_accumulates(job) or not _accumulates(self.profile.job))
        )


def below(
    timelines: Timelines, evidence: Evidence, target: Target, headroom_fraction: float
) -> int:
    """The largest micro-batch size to plan with when one was seen not to fit: 0 where none is left.

    The estimate is taken to be off by the same factor at fewer samples; the headroom stays free.
    """
    profile, context = evidence.profile, target.gpu_type.context_bytes
    probe = Probe(timelines, profile.job, target.gpu_type)
    wanted = target.capacity_bytes - int(target.capacity_bytes * headroom_fraction)
    off_by = (evidence.needed_bytes - context) / probe.reserved_bytes(profile.micro_batch_size)
    room = (wanted - context) / off_by
    return largest(
        lambda n: probe.reserved_bytes(n) <= room,
        profile.micro_batch_size - 1,
        int(profile.micro_batch_size * wanted / evidence.needed_bytes),
    )


def described(profile: MeasuredProfile) -> str:
    """On what it was measured, how long, with which versions."""
    where = profile.device_name or profile.gpu_type
    host = f" on host {profile.host}" if profile.host else ""
    when = f", {profile.create_time:%Y-%m-%d %H:%M} UTC" if profile.create_time else ""
    steps = f"{profile.step_count} steps after {profile.warmup_step_count} to warm up"
    versions = ", ".join(f"{name} {v}" for name, v in sorted(profile.library_versions.items()))
    return f"{where}{host}{when}, {steps}{f'; {versions}' if versions else ''}"


_NOT_A_GPU = (
    "It ran on a CPU, which shows nothing of kernels, workspaces and the context of a GPU: "
    "the verdicts stay those of the estimate."
)


def _another(profile: MeasuredProfile, target: Target) -> str:
    measured = profile.gpu_type or profile.device_name
    return (
        f"It was measured on {measured} and not on {target.gpu_type.name}: the verdicts stay those "
        "of the estimate."
    )


def _out_of_memory(profile: MeasuredProfile, target: Target) -> Evidence:
    size, capacity = profile.micro_batch_size, target.capacity_bytes
    limit = profile.memory_limit_bytes or target.gpu_type.usable_bytes
    context = profile.context_before_bytes or target.gpu_type.context_bytes
    needed = max(limit, profile.peak_reserved_bytes + context + profile.requested_bytes)
    if profile.shared or limit < capacity * _SAME:
        why = "others used the GPU" if profile.shared else f"{gib(capacity)} were asked about"
        return Evidence(
            profile,
            Finding.NOTHING,
            needed,
            f"Micro-batch {size} ran out of memory at {gib(limit)}, which decides nothing: {why}.",
        )
    return Evidence(
        profile,
        Finding.DOES_NOT_FIT,
        max(needed, capacity + 1),
        f"Micro-batch {size} does not fit: it ran out of memory at {gib(limit)}.",
    )


def _ran(profile: MeasuredProfile, target: Target) -> Evidence:
    size, capacity = profile.micro_batch_size, target.capacity_bytes
    context = profile.context_after_bytes or target.gpu_type.context_bytes
    used = max(profile.device_used_bytes, profile.peak_reserved_bytes + context)
    least = profile.peak_allocated_bytes + context
    with_others = used + (COMMUNICATION_BYTES if _communicates(profile.job) else 0)
    if used <= capacity < with_others:
        why = (
            f"Micro-batch {size} took {gib(used)} of {gib(capacity)} as the only rank, which "
            f"decides nothing: NCCL may take {gib(COMMUNICATION_BYTES)} more."
        )
        return Evidence(profile, Finding.NOTHING, used, why)
    if used <= capacity:
        why = f"Micro-batch {size} fits: it took {gib(used)} of {gib(capacity)}."
        return Evidence(profile, Finding.FITS, used, why)
    limit = profile.memory_limit_bytes or target.gpu_type.usable_bytes
    if least > capacity or limit * _SAME <= capacity:
        why = (
            f"Micro-batch {size} does not fit: it took {gib(used)}, and {gib(capacity)} are there."
        )
        return Evidence(profile, Finding.DOES_NOT_FIT, used, why)
    why = (
        f"Micro-batch {size} took {gib(used)} where there was more than the {gib(capacity)} asked "
        "about, which decides nothing: with less the allocator gives back what it only keeps."
    )
    return Evidence(profile, Finding.NOTHING, used, why)


def _communicates(job: TrainingJob) -> bool:
    return job.data_parallel.strategy is DataParallelStrategy.DDP


def _accumulates(job: TrainingJob) -> bool:
    return job.loop.accumulation_steps > 1
