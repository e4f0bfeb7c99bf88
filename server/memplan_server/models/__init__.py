"""A job's model description -> an nn.Module on the meta device, and what it is fed with.

    built = build(job)              # no memory, no network, no code from the request
    names = list_models()           # `library/model`, sorted

Runs in worker processes only. Imports of torchvision, timm and transformers happen when a job first
names them.
"""

from memplan_server.models.build import build, list_models
from memplan_server.models.built import BuiltModel
from memplan_server.models.graph_arguments import torch_dtype
from memplan_server.models.graph_sizes import input_shape
from memplan_server.models.outputs import extract_loss, extract_outputs

__all__ = [
    "BuiltModel",
    "build",
    "extract_loss",
    "extract_outputs",
    "input_shape",
    "list_models",
    "torch_dtype",
]
