"""Timelines made by hand, in the shape that real ones have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from memplan.types import GpuTarget, GpuType, Precision, TrainingJob
from memplan_server.planning import Target
from memplan_server.timeline import Category, Module, Phase, Timeline

MIB = 1 << 20
ALL_CLASSES = ((6, 0), (7, 0), (8, 0), (8, 6), (9, 0))


class Builder:
    """Writes events as a training step would make them."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.marks: list[tuple[int, int]] = []
        self.storages: list[tuple[int, int, Category, int, int]] = []
        self.phase, self.step, self.micro_step = Phase.SETUP, 0, 0

    def allocate(self, category: Category, fixed: int, slope: int = 0, module: int = -1) -> int:
        self.storages.append((fixed, slope, category, module, self.micro_step))
        self._event(len(self.storages) - 1)
        return len(self.storages) - 1

    def free(self, storage: int) -> None:
        self._event(~storage)

    def _event(self, event: int) -> None:
        self.events.append(event)
        self.marks.append((self.phase, self.step))

    def timeline(self, **facts: object) -> Timeline:
        fixed, slope, category, module, micro_step = zip(*self.storages, strict=True)
        return Timeline(
            events=np.array(self.events, np.int32),
            phase=np.array([p for p, _ in self.marks], np.uint8),
            step=np.array([s for _, s in self.marks], np.uint8),
            intercept=np.array(fixed, np.int64),
            slope=np.array(slope, np.int64),
            category=np.array(category, np.uint8),
            module=np.array(module, np.int32),
            micro_step=np.array(micro_step, np.uint8),
            kernel_classes=ALL_CLASSES,
            **facts,  # type: ignore[arg-type]
        )


def network(
    layers: tuple[tuple[int, int], ...],
    *,
    micro_steps: int = 1,
    activation_share: float = 1.0,
    traits: tuple[str, ...] = (),
) -> Timeline:
    """Layers of (parameter bytes, activation bytes per sample), trained with momentum."""
    b = Builder()
    for size, _ in layers:
        b.allocate(Category.PARAMETER, size)
    states: list[int] = []
    for b.step in (0, 1):
        gradients: list[int] = []
        for b.micro_step in range(micro_steps):
            b.phase = Phase.FORWARD
            kept = [b.allocate(Category.INPUT, 0, 4096)]
            for i, (_, activation) in enumerate(layers):
                kept.append(
                    b.allocate(Category.ACTIVATION, 0, int(activation * activation_share), i)
                )
            b.phase = Phase.BACKWARD
            before = b.allocate(Category.TEMPORARY, 0, 512)
            for (size, activation), held in zip(reversed(layers), reversed(kept[1:]), strict=True):
                after = b.allocate(Category.TEMPORARY, 0, int(activation * activation_share))
                b.free(before)
                made = b.allocate(Category.GRADIENT, size)
                if b.micro_step:
                    b.free(made)
                else:
                    gradients.append(made)
                b.free(held)
                before = after
            b.free(before)
            b.free(kept[0])
        b.phase, b.micro_step = Phase.OPTIMIZER_STEP, 0
        if not states:
            states = [b.allocate(Category.OPTIMIZER_STATE, size) for size, _ in layers]
        for gradient in gradients:
            b.free(gradient)
    total = sum(size for size, _ in layers)
    return b.timeline(
        modules=tuple(Module(f"layer{i}", "Layer") for i in range(len(layers))),
        parameter_count=total // 4,
        parameter_bytes=total,
        gradient_bytes=total,
        optimizer_state_bytes=total,
        micro_steps=micro_steps,
        traits=traits,
    )


@dataclass
class Fixed:
    """Timelines of one network, by how the job is trained."""

    layers: tuple[tuple[int, int], ...] = ((4 * MIB, 3 * MIB), (40 * MIB, 1 * MIB), (9000, 300_000))
    traits: tuple[str, ...] = ()
    _made: dict[tuple[int, bool], Timeline] = field(default_factory=dict)

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        micro_steps = min(2, max(1, job.loop.accumulation_steps))
        low = job.precision is Precision.AMP_BF16
        key = (micro_steps, low)
        if key not in self._made:
            self._made[key] = network(
                self.layers,
                micro_steps=micro_steps,
                activation_share=0.5 if low else 1.0,
                traits=self.traits,
            )
        return self._made[key]


def gpu(memory_bytes: int, name: str = "test-gpu") -> GpuType:
    return GpuType(
        name=name,
        total_bytes=memory_bytes,
        usable_bytes=memory_bytes,
        context_bytes=300 * MIB,
        compute_capability="8.0",
    )


def target(memory_bytes: int, name: str = "test-gpu") -> Target:
    return Target(GpuTarget(gpu_type=name), gpu(memory_bytes, name))


def job(batch_size: int = 8, precision: Precision = Precision.FP32) -> TrainingJob:
    plain = TrainingJob(micro_batch_size=batch_size, precision=precision)
    return replace(plain, loop=replace(plain.loop, accumulation_steps=1))
