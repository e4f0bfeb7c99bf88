"""The operators that a captured graph may call.

    operator = find("aten.linear.default")      # None: not allowed

A rule, not a list, since PyTorch has thousands: the operator is of the namespace `aten`, exists,
takes nothing but tensors, numbers, truth values, words, element types, layouts and memory formats,
returns nothing but tensors, and is not among those refused below. Under the simulated GPU an
operator is arithmetic on shapes: nothing here reads a file, an address or another device.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import torch

__all__ = ["find", "kind_of"]

_NAME = re.compile(r"aten\.(\w{1,100})\.(\w{1,100})")
_KINDS = frozenset(
    ("Tensor", "int", "SymInt", "float", "bool", "number", "str", "ScalarType", "Layout")
) | {"MemoryFormat", "Device", "Generator"}
_REFUSED = re.compile(
    # Reads files, addresses or the process; replaces the storage under a tensor.
    "from_file|set_?|set_data|data|resize_?|resize_as.*|record_stream|.*pin_memory|is_pinned|"
    "rename_?|align_.*|refine_names|"
    # Starts autograd, or reads values.
    "backward|retain_grad|item|equal|is_.*|allclose|"
    # Belongs to other devices, layouts or number formats.
    "(mkldnn|miopen|mps|vulkan|xla|fbgemm|q|quantize|quantized|fake_quantize|sparse|ccol|crow|"
    "cudnn|to_mkldnn|to_sparse|to_padded|segment|nested)_.*|dequantize|.*sparse.*|.*quantized.*|"
    # Spelled out tens of thousands of values.
    "combinations|cartesian_prod|sym_.*"
)
_PRIVATE = re.compile(
    "__(and|or|xor|lshift|rshift|iand|ior|ixor|ilshift|irshift)__|"
    "_adaptive_avg_pool[23]d|_batch_norm_impl_index|_cast_.*|_cdist_forward|_conj|"
    "_conj_physical|_convolution|_ctc_loss|_embedding_bag|_euclidean_dist|_fft_.2.|"
    "_foreach_.*|_fused_rms_norm|_grouped_mm|_log_softmax|_masked_scale|_masked_softmax|"
    "_native_batch_norm_.*|_pack_padded_sequence|_pad_(circular|enum|packed_sequence)|"
    "_pdist_forward|_prelu_kernel|_reshape_alias|_safe_softmax|"
    "_scaled_dot_product_(flash|efficient|cudnn)_attention|_scaled_dot_product_attention_math|"
    "_shape_as_tensor|_softmax|_stack|_standard_gamma|_to_copy|"
    "_transform_bias_rescale_qkv|_trilinear|_unique2?|_unsafe_view|_upsample_.*|"
    "_weight_norm|_weight_norm_interface"
)
"""Those of the operators with a private name that models come to call."""


@functools.cache
def find(name: str) -> Any:
    """The operator of this name, `aten.add.Tensor`; None where there is none or it is refused."""
    matched = _NAME.fullmatch(name)
    if matched is None or not _is_allowed(matched[1]):
        return None
    if not torch._C._dispatch_has_kernel(_dispatcher_name(*matched.groups())):
        return None
    operator = getattr(getattr(torch.ops.aten, matched[1], None), matched[2], None)
    return operator if operator is not None and _is_about_tensors(operator._schema) else None


def kind_of(argument: Any) -> tuple[str, bool, bool]:
    """What an argument of a schema takes: (kind, a list of it, None too)."""
    written = str(argument.real_type)
    optional = written.startswith("Optional[")
    written = written[9:-1] if optional else written
    several = written.startswith("List[")
    written = written[5:-1] if several else written
    inner = written.startswith("Optional[")
    return (written[9:-1] if inner else written), several, optional


def _dispatcher_name(name: str, overload: str) -> str:
    return f"aten::{name}" if overload == "default" else f"aten::{name}.{overload}"


def _is_allowed(name: str) -> bool:
    if name.startswith("_"):
        return _PRIVATE.fullmatch(name) is not None
    return _REFUSED.fullmatch(name) is None


def _is_about_tensors(schema: Any) -> bool:
    taken = {kind_of(argument)[0] for argument in schema.arguments}
    returned = {str(result.type) for result in schema.returns}
    return taken <= _KINDS and returned <= {"Tensor", "List[Tensor]"}
