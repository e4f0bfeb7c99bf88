"""Jobs really run for those who ask: a queue, devices, processes that measure. Imports no torch."""

from memplan_server.profiling.interface import Asked, Profiler

__all__ = ["Asked", "Profiler"]
