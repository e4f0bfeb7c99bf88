"""A device that does not exist.

PyTorch lets Python register a backend under its PrivateUse1 key. Under a `FakeTensorMode`, tensors
on that device have shapes and no data, autograd and optimizers are the real ones, and decisions
that PyTorch makes by device (fused dropout, fused LSTM cells, multi-tensor optimizers) fall as on a
GPU.

`register()` changes the process for good, so it is called in worker processes only.

Known limitations: one device; streams wait for nothing, so memory that CUDA holds back until
another stream has used it is not modelled.
"""

from __future__ import annotations

import functools

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from memplan_server.simulate import DEVICE_TYPE, attention, autocast, kernels, recurrent, streams

__all__ = ["register"]


class _Backend:
    """What PyTorch asks of a backend's module."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def is_bf16_supported(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        """Nothing is random here."""

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        """Activation checkpointing saves it; a state of no bytes."""
        return torch.empty(0, dtype=torch.uint8, device="cpu")

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        """Nothing is random here."""

    Stream = streams.Stream
    Event = streams.Event
    current_stream = staticmethod(streams.current)
    stream = staticmethod(streams.entered)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16, torch.float32]


@functools.cache
def register() -> torch.device:
    """Register the backend, once a process, and return its device."""
    _setup_privateuseone_for_python_backend(DEVICE_TYPE, _Backend())
    _keep_fused_kernels()
    autocast.register()
    attention.register()
    kernels.register()
    recurrent.register()
    return torch.device(DEVICE_TYPE, 0)


def _keep_fused_kernels() -> None:
    """Keep operators whole that have a CUDA kernel and a composite fallback.

    A backend that registers nothing for them gets the composite: `silu_backward` becomes six
    operators with a tensor each. The kernels registered here are never reached: a fake tensor's
    shape comes from the meta kernel.
    """
    library = torch.library.Library("aten", "IMPL")
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in torch._C._dispatch_get_all_op_names():
        composite = name.startswith("aten::") and has(name, "CompositeImplicitAutograd")
        if composite and has(name, "CPU"):
            library.impl(name.removeprefix("aten::"), _unreachable, "PrivateUse1")
    _libraries.append(library)


_libraries: list[torch.library.Library] = []  # a Library undoes its registrations when collected


def _unreachable(*args: object, **kwargs: object) -> None:
    raise AssertionError("a kernel of the simulated GPU ran outside the fake tensor mode")
