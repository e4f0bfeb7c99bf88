"""A torch.nn.Module as data: what it computes, without its code and its weights.

    graph = memplan.capture(model, torch.empty(8, 3, 224, 224), loss=nn.CrossEntropyLoss(),
                            targets=torch.zeros(8, dtype=torch.int64))

Importing this package imports torch, so it is imported when first used.
"""

from memplan.capturing.modules import capture
from memplan.capturing.optimizers import describe_optimizer
from memplan.capturing.training import capture_job

__all__ = ["capture", "capture_job", "describe_optimizer"]
