"""The training loop, the same for the simulated GPU and for real devices.

    Loop(job=job, built=built, device=device, batch_size=8, micro_steps=1, observer=...).run()

What watches the loop is an `Observer`; what puts values into its tensors is a `Data`.
"""

from memplan_server.training.loop import Loop, TargetSpec
from memplan_server.training.observer import Data, Observer, Unobserved, WithoutValues
from memplan_server.training.preparation import prepare

__all__ = ["Data", "Loop", "Observer", "TargetSpec", "Unobserved", "WithoutValues", "prepare"]
