"""A model of PyTorch's CUDA caching allocator, byte for byte."""

from memplan_server.allocator.caching import CachingAllocator, OutOfMemory
from memplan_server.allocator.plain import Unlimited
from memplan_server.allocator.replay import Replay, replay, replay_with

__all__ = ["CachingAllocator", "OutOfMemory", "Replay", "Unlimited", "replay", "replay_with"]
