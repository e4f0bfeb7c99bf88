"""GPU memory of a deep-learning training job, before it runs.

    import memplan

    job = memplan.TrainingJob(
        model=memplan.Model(catalog=memplan.CatalogModel(name="torchvision/resnet50")),
        inputs=(memplan.InputTensor(shape=(3, 224, 224)),),
        optimizer=memplan.Optimizer(type=memplan.OptimizerType.ADAM),
        micro_batch_size=64,
    )
    with memplan.Client() as client:
        plan = client.plan_job(job, ["nvidia-t4", "nvidia-a100-40gb"])

The types are those of the contract (`memplan.types`); the exceptions are in `memplan.errors`. gRPC
is imported with the first use of `Client`, torch with that of `capture`, `capture_job` and
`describe_optimizer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memplan import errors, hugging_face, types
from memplan.errors import *  # noqa: F403
from memplan.hugging_face import *  # noqa: F403
from memplan.types import *  # noqa: F403

if TYPE_CHECKING:
    from memplan.capturing import capture, capture_job, describe_optimizer
    from memplan.client import Client

__all__ = ["Client", "capture", "capture_job", "describe_optimizer", "errors", "types"]
__all__ += errors.__all__
__all__ += hugging_face.__all__
__all__ += types.__all__


def __getattr__(name: str) -> Any:
    if name == "Client":
        from memplan.client import Client

        return Client
    if name in ("capture", "capture_job", "describe_optimizer"):
        from memplan import capturing

        return getattr(capturing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
