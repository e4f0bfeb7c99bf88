"""Wiring: from settings to what measures jobs."""

from __future__ import annotations

from contextlib import ExitStack

from memplan.endpoint import Endpoint
from memplan.types import (
    DeviceType,
    GpuTarget,
    GpuType,
    MeasuredProfile,
    Prediction,
    TrainingJob,
)
from memplan_server import planning
from memplan_server.calls import Call
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.inventory import load_nvml
from memplan_server.knowledge import Knowledge
from memplan_server.metrics import Metrics
from memplan_server.profiling.devices import Device, Gpus, processor
from memplan_server.profiling.discovery import Discovery
from memplan_server.profiling.interface import Profiler
from memplan_server.profiling.local import DEFAULT_GPU_TYPE, LocalProfiler
from memplan_server.profiling.observed import ObservedProfiler
from memplan_server.profiling.predicted import PredictingProfiler
from memplan_server.profiling.queue import DeviceQueue
from memplan_server.profiling.remote import Remote, Remotes
from memplan_server.profiling.routed import RoutedProfiler
from memplan_server.profiling.states import device_states
from memplan_server.settings import Settings
from memplan_server.timelines import CallTimelines, TimelineCache, estimation_version

__all__ = ["make_profiler"]


def make_profiler(
    settings: Settings,
    metrics: Metrics,
    *,
    catalog: GpuCatalog,
    knowledge: Knowledge,
    timelines: TimelineCache,
    measure: str,
    stack: ExitStack,
) -> Profiler:
    """What measures jobs for a server; `stack` gets what has to be closed.

    Raises OSError when the file of `--profiler-ca` cannot be read.
    """
    gpus = Gpus(load_nvml(), catalog)
    cpu = Device(type=DeviceType.CPU, name=processor())
    queue = DeviceQueue((*gpus.devices(), cpu), most_waiting=settings.profile_queue_length)
    metrics.profiles_queued.set_function(lambda: len(queue))
    metrics.profile_devices.set_function(lambda: device_states(settings.node_name, queue, gpus))
    estimates = _Estimates(knowledge, timelines)
    local = LocalProfiler(
        queue=queue,
        gpus=gpus,
        context_bytes=estimates.context_bytes,
        largest_batch=estimates.largest_batch,
        host_memory_bytes=settings.profile_memory_limit,
        measure=measure,
    )
    stack.callback(local.stop)
    remotes = _remotes(settings, stack)
    routed = RoutedProfiler(local=local, remotes=remotes)
    predicting = PredictingProfiler(routed, estimates.prediction, estimation_version())
    return ObservedProfiler(predicting, metrics)


def _remotes(settings: Settings, stack: ExitStack) -> Remotes | None:
    if not settings.profiler:
        return None
    encrypted = settings.profiler_ca is not None

    def make(target: str, name: str) -> Remote:
        return Remote(
            Endpoint(
                target=target,
                retries=0,
                root_certificates=settings.profiler_ca,
                client_certificate=settings.tls_cert if encrypted else None,
                client_key=settings.tls_key if encrypted else None,
                server_name=name if encrypted else "",
                token_file=settings.profiler_token_file,
                plaintext_token=not encrypted,
            )
        )

    found = Discovery(targets=settings.profiler, make=make)
    found()  # files that cannot be read are noticed now
    stack.callback(found.close)
    return Remotes(find=found)


class _Estimates:
    """What the estimate says of a job, for those who measure it."""

    def __init__(self, knowledge: Knowledge, timelines: TimelineCache) -> None:
        self._knowledge = knowledge
        self._timelines = timelines

    def largest_batch(self, job: TrainingJob, gpu_type: str, room_bytes: int, call: Call) -> int:
        """The largest micro-batch size that fits in these bytes; 0: none does."""
        known = self._gpu_type(gpu_type)
        target = planning.Target(
            gpu=GpuTarget(gpu_type=known.name, free_bytes=room_bytes or None), gpu_type=known
        )
        timelines = CallTimelines(self._timelines, call)
        (found,) = planning.recommend_batch_sizes(timelines, job, [target])
        return found.max_batch_size

    def prediction(self, profile: MeasuredProfile, call: Call) -> Prediction:
        """The estimate for the job that was measured, on the GPU type it was measured on."""
        timelines = CallTimelines(self._timelines, call)
        gpu_type = self._gpu_type(profile.gpu_type)
        estimate = planning.estimate_memory(timelines, profile.job, gpu_type)
        return Prediction(
            peak_allocated_bytes=estimate.peak_allocated_bytes,
            peak_reserved_bytes=estimate.peak_reserved_bytes,
            context_bytes=estimate.breakdown.context_bytes,
            family=planning.family(timelines.get(profile.job, gpu_type), gpu_type),
            version=estimation_version(),
        )

    def context_bytes(self, gpu_type: str) -> int:
        """Of a GPU type of the catalog."""
        return self._gpu_type(gpu_type).context_bytes

    def _gpu_type(self, name: str) -> GpuType:
        return self._knowledge.now().catalog.get(name or DEFAULT_GPU_TYPE)
