"""A training job, described as data.

Counterpart of `proto/memplan/v1/job.proto`: same names, same meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from memplan.types.dtypes import DataType
from memplan.types.graph import Graph
from memplan.types.layers import LayerStack

__all__ = [
    "AllocatorSettings",
    "Assumptions",
    "CatalogModel",
    "DataParallel",
    "DataParallelStrategy",
    "GradientClipping",
    "InputTensor",
    "Loss",
    "MemoryFormat",
    "Model",
    "Optimizer",
    "OptimizerGroup",
    "OptimizerImplementation",
    "OptimizerType",
    "Padding",
    "Precision",
    "Routing",
    "TrainingJob",
    "TrainingLoop",
    "ZeroGrad",
]


class Loss(StrEnum):
    """How the loss is computed from the model's output."""

    UNSPECIFIED = "unspecified"
    """MODEL where the model computes one itself (transformers, a graph with a loss), MSE for
    diffusers, else CROSS_ENTROPY."""
    CROSS_ENTROPY = "cross-entropy"
    """torch.nn.functional.cross_entropy over dimension 1 with class-index targets."""
    BINARY_CROSS_ENTROPY_WITH_LOGITS = "binary-cross-entropy-with-logits"
    """binary_cross_entropy_with_logits with targets of the output's shape."""
    MSE = "mse"
    """mse_loss with targets of the output's shape."""
    L1 = "l1"
    """l1_loss with targets of the output's shape."""
    MODEL = "model"
    """The loss that the model returns when it is given labels (transformers), or that a graph
    has."""
    MEAN = "mean"
    """The mean of the output: no targets."""


class OptimizerType(StrEnum):
    """Optimizer classes."""

    UNSPECIFIED = "unspecified"
    """SGD."""
    SGD = "sgd"
    """torch.optim.SGD."""
    ADAM = "adam"
    """torch.optim.Adam."""
    ADAMW = "adamw"
    """torch.optim.AdamW."""
    ADAGRAD = "adagrad"
    """torch.optim.Adagrad."""
    RMSPROP = "rmsprop"
    """torch.optim.RMSprop."""
    ADAFACTOR = "adafactor"
    """torch.optim.Adafactor."""
    CUSTOM = "custom"
    """Any optimizer that keeps `state_count` tensors like the parameter and updates in place."""


class OptimizerImplementation(StrEnum):
    """How the optimizer's step is executed."""

    UNSPECIFIED = "unspecified"
    """FOREACH where the class has it, else SINGLE."""
    FOREACH = "foreach"
    """One multi-tensor kernel per operation: about one extra copy of the parameters in
    temporaries."""
    FUSED = "fused"
    """One kernel for everything: no temporaries. ADAM, ADAMW, SGD, ADAGRAD."""
    SINGLE = "single"
    """One parameter at a time."""


class Precision(StrEnum):
    """Number formats of weights and compute."""

    UNSPECIFIED = "unspecified"
    """FP32."""
    FP32 = "fp32"
    """float32 weights and compute."""
    TF32 = "tf32"
    """float32 weights, TensorFloat-32 matrix products: FP32's memory."""
    AMP_FP16 = "amp-fp16"
    """float32 weights, torch.autocast(float16), torch.amp.GradScaler."""
    AMP_BF16 = "amp-bf16"
    """float32 weights, torch.autocast(bfloat16), no scaler."""
    BF16 = "bf16"
    """bfloat16 weights, gradients and optimizer states."""
    FP16 = "fp16"
    """float16 weights, gradients and optimizer states."""


class MemoryFormat(StrEnum):
    """Memory layout of 4-d tensors."""

    UNSPECIFIED = "unspecified"
    """CONTIGUOUS."""
    CONTIGUOUS = "contiguous"
    """NCHW."""
    CHANNELS_LAST = "channels-last"
    """NHWC: model and inputs are converted with memory_format=torch.channels_last."""


class ZeroGrad(StrEnum):
    """When gradients are zeroed."""

    UNSPECIFIED = "unspecified"
    """BEFORE_FORWARD."""
    BEFORE_FORWARD = "before-forward"
    """At the start of the step."""
    BEFORE_BACKWARD = "before-backward"
    """Between forward and backward: gradients of the last step are alive during forward."""
    AFTER_STEP = "after-step"
    """Right after optimizer.step()."""
    NEVER = "never"
    """Never: gradients stay alive for ever."""


class GradientClipping(StrEnum):
    """Gradient clipping."""

    UNSPECIFIED = "unspecified"
    """NONE."""
    NONE = "none"
    """No clipping."""
    NORM = "norm"
    """torch.nn.utils.clip_grad_norm_."""
    VALUE = "value"
    """torch.nn.utils.clip_grad_value_."""


class Routing(StrEnum):
    """How routers of mixture-of-experts spread tokens over experts."""

    UNSPECIFIED = "unspecified"
    """BALANCED."""
    BALANCED = "balanced"
    """Every expert gets the same number of tokens."""
    WORST_CASE = "worst-case"
    """All tokens go to the same experts: those are computed with as many tokens as there are."""


class Padding(StrEnum):
    """Whether sequences of a batch differ in length, and how that is told."""

    UNSPECIFIED = "unspecified"
    """NONE."""
    NONE = "none"
    """All have the full length. Attention masks that are passed hold ones only."""
    PADDED = "padded"
    """Shorter ones are filled up, and an attention mask with zeros in it is passed."""
    PACKED = "packed"
    """Several sequences fill a row without padding, and position_ids that begin anew are passed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogModel:
    """A model that the server knows by name."""

    name: str = ""
    """`library/model`: `torchvision/resnet50`, `timm/vit_base_patch16_224`, `transformers/bert`,
    `diffusers/UNet2DConditionModel`. ListModels lists them. Required."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Constructor options that differ from the library's defaults: `num_classes` for torchvision
    and timm, any field of the config class for transformers (`num_hidden_layers`, `vocab_size`),
    `attn_implementation` and `experts_implementation`. With a `model_type` it is a whole
    `config.json` of transformers, and the task is that of its `architectures`; with a
    `_class_name`, one of diffusers. Numbers without a fraction become integers. At most 1,000
    values, nested at most 8 deep; numbers of at most 2^53 either way; texts of at most 1,000
    characters."""
    task: str = ""
    """Task head, for transformers: `masked-lm`, `causal-lm`, `seq2seq-lm`, `sequence-
    classification`, `token-classification`, `question-answering`, `image-classification`,
    `image-text-to-text`, `zero-shot-image-classification`, `speech-seq2seq`,
    `video-classification`, `audio-classification`, `semantic-segmentation`, `ctc`. Default: what
    the model type is pretrained for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What is trained."""

    catalog: CatalogModel | None = None
    """A model that the server knows by name."""
    layer_stack: LayerStack | None = None
    """A model written down layer by layer."""
    graph: Graph | None = None
    """A model captured from code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputTensor:
    """One input of the model."""

    name: str = ""
    """Name of the forward() parameter that takes it. Default: by position."""
    shape: tuple[int, ...] = ()
    """Shape of one sample, without the batch dimension: [3, 224, 224]. Each 1 to 2^31 - 1; at most
    8; at most 2^40 elements in all. Empty for a scalar per sample."""
    dtype: DataType = DataType.UNSPECIFIED
    """Element type. Default: FLOAT32, or what the model's precision makes of it (BF16 and FP16 jobs
    get their images in that type)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerGroup:
    """A parameter group of the optimizer: its options, which mean what they mean in `Optimizer`."""

    implementation: OptimizerImplementation = OptimizerImplementation.UNSPECIFIED
    """Default: what torch.optim picks on CUDA."""
    momentum: float = 0.0
    """SGD and RMSPROP. Default 0. Range [0, 1)."""
    amsgrad: bool = False
    """ADAM and ADAMW. Default false."""
    centered: bool = False
    """RMSPROP. Default false."""
    nesterov: bool = False
    """SGD, with momentum above 0. Default false."""
    weight_decay: float | None = None
    """Default: the class's own. At least 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """The optimizer, with the options that change memory. Options that do not (lr, betas, eps,
    maximize) are left out."""

    type: OptimizerType = OptimizerType.UNSPECIFIED
    """Default: SGD."""
    implementation: OptimizerImplementation = OptimizerImplementation.UNSPECIFIED
    """Default: what torch.optim picks on CUDA: foreach where the optimizer has it."""
    momentum: float = 0.0
    """SGD and RMSPROP: momentum; above 0 adds one state per parameter. Default 0. Range [0, 1)."""
    amsgrad: bool = False
    """ADAM and ADAMW: keep the running maximum of the second moment, one more state. Default
    false."""
    centered: bool = False
    """RMSPROP: centered, one more state. Default false."""
    nesterov: bool = False
    """SGD: Nesterov momentum; needs momentum above 0. Default false."""
    weight_decay: float | None = None
    """Weight decay: a temporary copy of the gradients in optimizers that add it to them. Default:
    the class's own (0.01 for ADAMW, else 0). At least 0."""
    state_count: int = 0
    """CUSTOM: state tensors kept per parameter, each like the parameter (Lion: 1). 0 to 16."""
    groups: tuple[OptimizerGroup, ...] = ()
    """For a graph: parameter groups with options of their own, instead of the options above. Each
    parameter says which it belongs to; one that belongs to none is not given to the optimizer. At
    most 4,096."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """What is taken for given where memory depends on the values of data, which a simulation does
    not have. Those that an estimate rests on are among its assumptions."""

    routing: Routing = Routing.UNSPECIFIED
    """How routers of mixture-of-experts spread tokens over experts. Default: BALANCED."""
    padding: Padding = Padding.UNSPECIFIED
    """Whether sequences of a batch differ in length. Default: NONE."""
    images_per_sample: int = 0
    """Images in each sample of a model that takes images and text. Default: 1. 1 to 1,024."""
    boxes_per_image: int = 0
    """Objects in each image that an object detection model is trained on: ground-truth boxes, and
    masks or keypoints where it has them. Default: 8. 1 to 10,000."""
    conditions_are_false: bool = False
    """Conditions read from tensors whose values are not known (`if mask.all():`) are taken to be
    false. Default false: they are taken to be true. Of a graph it says what its capture took."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingLoop:
    """What the loop does besides forward, backward and step."""

    zero_grad: ZeroGrad = ZeroGrad.UNSPECIFIED
    """When optimizer.zero_grad() is called. Default: BEFORE_FORWARD."""
    zero_grad_set_to_none: bool | None = None
    """zero_grad(set_to_none=...). Default true: gradients are freed, not filled with zeros."""
    gradient_clipping: GradientClipping = GradientClipping.UNSPECIFIED
    """Gradient clipping before the step. Default: NONE."""
    accumulation_steps: int = 0
    """Forward and backward passes before each optimizer step. Default 1. 1 to 2^20."""
    keep_outputs: bool | None = None
    """Whether the loop's variables (batch, outputs, loss) keep their tensors until the next
    iteration overwrites them, as local variables of a plain Python loop do. Default true."""


class DataParallelStrategy(StrEnum):
    """How gradients of data-parallel ranks come together."""

    UNSPECIFIED = "unspecified"
    """DDP where the request has a data_parallel_size above 1, or an option of it is given, else
    NONE."""
    NONE = "none"
    """Outside PyTorch's allocator, or there are no other ranks."""
    DDP = "ddp"
    """torch.nn.parallel.DistributedDataParallel: one more copy of the gradients, in buckets. All
    micro-batches of a step but the last run under its no_sync()."""
    FSDP = "fsdp"
    """torch.distributed.fsdp.fully_shard (FSDP2) on each of the model's repeated blocks and on the
    model. In mixed precision it casts parameters (MixedPrecisionPolicy, gradients are reduced in
    float32) instead of autocast. For catalog models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataParallel:
    """What a job does as one of several ranks that train copies of the model, a GPU for each."""

    strategy: DataParallelStrategy = DataParallelStrategy.UNSPECIFIED
    """How gradients of the ranks come together. Default: DDP where the request has a
    data_parallel_size above 1, or an option of it is given, else NONE."""
    gradient_as_bucket_view: bool = False
    """DDP: gradients are views of the buckets that are reduced, not copied into them. Default
    false."""
    bucket_cap_mb: int = 0
    """DDP: size of a bucket in MiB. Default 25. 1 to 2^20."""
    shard_count: int = 0
    """FSDP: ranks over which parameters, gradients and optimizer states are sharded. Default: the
    data_parallel_size of the request; required where it has none. 2 to 2^20."""
    reshard_after_forward: bool | None = None
    """FSDP: blocks give their gathered parameters back after forward, and gather them again in
    backward. Default true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AllocatorSettings:
    """Settings of PyTorch's CUDA caching allocator, by their names in PYTORCH_CUDA_ALLOC_CONF."""

    expandable_segments: bool = False
    """Grow segments instead of adding new ones: less fragmentation. Default false."""
    roundup_power2_divisions: int = 0
    """Round sizes up to 1/N of the next power of two. A power of two, 2 to 16; 0 is off."""
    max_split_size_mb: int = 0
    """Blocks above this many MiB are not split. At least 20; 0 is off."""
    garbage_collection_threshold: float = 0.0
    """Release cached blocks when usage exceeds this share of the capacity. In (0, 1); 0 is off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob:
    """A training job: one process, one GPU, one loop."""

    model: Model = field(default_factory=Model)
    """What is trained. Required."""
    inputs: tuple[InputTensor, ...] = ()
    """What one sample looks like, in the order (or by the names) the model takes it. Optional for a
    catalog model, whose own default input is then used and stated among the assumptions; required
    for a layer stack; none for a graph, which has its own. At most 16."""
    loss: Loss = Loss.UNSPECIFIED
    """The loss. Default: the loss the model computes itself where it does (transformers), for
    diffusers MSE, else cross-entropy."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """The optimizer. Default: SGD without momentum."""
    precision: Precision = Precision.UNSPECIFIED
    """Number formats of weights and compute. Default: FP32."""
    memory_format: MemoryFormat = MemoryFormat.UNSPECIFIED
    """Memory layout of 4-d weights and inputs. Default: CONTIGUOUS."""
    loop: TrainingLoop = field(default_factory=TrainingLoop)
    """What the loop does besides forward, backward and step."""
    allocator: AllocatorSettings = field(default_factory=AllocatorSettings)
    """Settings of the CUDA caching allocator (PYTORCH_CUDA_ALLOC_CONF)."""
    micro_batch_size: int = 0
    """Samples in one forward and backward pass on one GPU. Required, 1 to 2^24."""
    cudnn_benchmark: bool = False
    """torch.backends.cudnn.benchmark: the first call of each convolution with a new shape tries
    cuDNN's algorithms, after which PyTorch empties the allocator's cache. Default false."""
    assumptions: Assumptions = field(default_factory=Assumptions)
    """What is taken for given where memory depends on the values of data."""
    activation_checkpointing: bool = False
    """Activation (gradient) checkpointing as the model's library does it: most activations are not
    kept, and computed anew in backward. For catalog models whose library has it: transformers,
    timm, diffusers. A captured model has what its code does. Default false."""
    data_parallel: DataParallel = field(default_factory=DataParallel)
    """What the job does as one of several ranks that train copies of the model."""
