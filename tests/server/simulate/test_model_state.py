"""Parameters, gradients and optimizer states are what arithmetic over the parameters says."""

from __future__ import annotations

import pytest
from jobs import TRANSFORMERS, catalog_job
from torch import nn

from memplan.types import Optimizer, OptimizerType
from memplan_server import models
from memplan_server.simulate import worker
from memplan_server.timeline import Category, Timeline

MODELS = """
    torchvision/resnet18 torchvision/mobilenet_v2 torchvision/alexnet torchvision/squeezenet1_1
    timm/deit_tiny_patch16_224 timm/mixer_s32_224 transformers/distilbert transformers/gpt2
    transformers/t5 transformers/vit
""".split()

STATES = {
    OptimizerType.SGD: 0,
    OptimizerType.ADAM: 2,
    OptimizerType.ADAMW: 2,
    OptimizerType.RMSPROP: 1,
    OptimizerType.ADAFACTOR: None,
}
"""State tensors like the parameter; Adafactor keeps a row and a column for each matrix."""


def nbytes(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def adafactor_bytes(parameters: list[nn.Parameter]) -> int:
    """Factored second moments where there are two dimensions, whole ones elsewhere."""
    total = 0
    for p in parameters:
        if p.dim() > 1:
            rows, columns = p.numel() // p.size(-1), p.numel() // p.size(-2)
            total += (rows + columns) * p.element_size()
        else:
            total += p.numel() * p.element_size()
    return total


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("name", MODELS)
def test_exact(name: str, kind: OptimizerType) -> None:
    config = TRANSFORMERS.get(name.removeprefix("transformers/"))
    job = catalog_job(name, config, optimizer=Optimizer(type=kind))
    parameters = list(models.build(job).module.parameters())
    trained = [p for p in parameters if p.requires_grad]
    timeline = Timeline.from_bytes(worker.trace(job, (8, 0)))
    states = STATES[kind]
    expected = adafactor_bytes(trained) if states is None else states * nbytes(trained)
    assert timeline.parameter_bytes == nbytes(parameters)
    assert timeline.gradient_bytes == nbytes(trained)
    assert timeline.optimizer_state_bytes == expected
    sizes = timeline.sizes(4)
    assert int(sizes[timeline.category == Category.PARAMETER].sum()) == nbytes(parameters)
    assert int(sizes[timeline.category == Category.OPTIMIZER_STATE].sum()) == expected
