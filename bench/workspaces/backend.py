"""The few calls of cuDNN's backend API that say, without a GPU, which engines it would take.

    library = Library.load(Path("wheels"))
    tensor = library.descriptor(Kind.TENSOR)
    tensor.integers(Attribute.TENSOR_DIMENSIONS, 8, 3, 224, 224)...finalize()

Everything is a descriptor: made of a kind, given attributes, finalized, then read. Values of the
enumerations are those of `cudnn_graph.h`. Descriptors of devices came with cuDNN 9.8 ("deviceless
ahead-of-time compilation" in NVIDIA's documentation of the backend API).

By ctypes: it is eight functions, and there is nothing to install beside cuDNN.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from memplan_server.errors import MemplanError

__all__ = ["Attribute", "CudnnError", "Descriptor", "Kind", "Library", "Type", "version"]

OLDEST_VERSION = 90800
"""9.8.0: the first with descriptors of devices."""

_NAME = "libcudnn.so.9"
_CUBLAS = ("libcublasLt.so.12", "libcublasLt.so.13")
_BELOW = ("", "nvidia/cudnn/lib", "lib")
"""Where the library may be in a folder: `pip install --target` makes the second."""

_REMEDY = (
    "Install it into a folder, `pip install --target FOLDER --no-deps nvidia-cudnn-cu12==9.19.0.56 "
    "nvidia-cublas-cu12`, and name the folder with --cudnn or MEMPLAN_CUDNN. It takes no GPU and "
    "no driver; cuDNN from 9.20 on wants the driver's libcuda.so.1."
)


class CudnnError(MemplanError):
    """cuDNN is not there, or refuses what it was asked."""


class Kind(IntEnum):
    """`cudnnBackendDescriptorType_t`."""

    CONVOLUTION = 1
    ENGINE = 2
    ENGINE_CONFIGURATION = 3
    HEURISTICS = 4
    WGRAD = 11
    FPROP = 10
    DGRAD = 12
    GRAPH = 15
    TENSOR = 17
    DEVICE = 38


class Type(IntEnum):
    """`cudnnBackendAttributeType_t`."""

    DATA_TYPE = 1
    INT64 = 3
    FLOAT = 4
    CONVOLUTION_MODE = 7
    HEURISTIC_MODE = 8
    DESCRIPTOR = 15
    INT32 = 23
    CHAR = 24


class Attribute(IntEnum):
    """`cudnnBackendAttributeName_t`."""

    CONVOLUTION_COMPUTE_TYPE = 100
    CONVOLUTION_MODE = 101
    CONVOLUTION_DILATIONS = 102
    CONVOLUTION_STRIDES = 103
    CONVOLUTION_POST_PADDINGS = 104
    CONVOLUTION_PRE_PADDINGS = 105
    CONVOLUTION_SPATIAL_DIMS = 106
    HEURISTICS_MODE = 200
    HEURISTICS_GRAPH = 201
    HEURISTICS_RESULTS = 202
    HEURISTICS_DEVICE = 204
    CONFIGURATION_ENGINE = 300
    CONFIGURATION_WORKSPACE_SIZE = 303
    FPROP_ALPHA = 700
    FPROP_BETA = 701
    FPROP_CONVOLUTION = 702
    FPROP_KERNEL = 703
    FPROP_IMAGE = 704
    FPROP_RESULT = 705
    DGRAD_ALPHA = 706
    DGRAD_BETA = 707
    DGRAD_CONVOLUTION = 708
    DGRAD_KERNEL = 709
    DGRAD_IMAGE = 710
    DGRAD_RESULT = 711
    WGRAD_ALPHA = 712
    WGRAD_BETA = 713
    WGRAD_CONVOLUTION = 714
    WGRAD_KERNEL = 715
    WGRAD_IMAGE = 716
    WGRAD_RESULT = 717
    GRAPH_OPERATIONS = 801
    TENSOR_ALIGNMENT = 900
    TENSOR_DATA_TYPE = 901
    TENSOR_DIMENSIONS = 902
    TENSOR_STRIDES = 903
    TENSOR_ID = 906
    ENGINE_INDEX = 1301
    DEVICE_ID = 2700
    DEVICE_JSON = 2702


def version(number: int) -> str:
    """91900 as 9.19.0."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


class Library:
    """A loaded cuDNN."""

    def __init__(self, loaded: Any) -> None:
        """Raises CudnnError for a version that cannot be asked without a GPU."""
        self.functions = loaded
        loaded.cudnnGetErrorString.restype = ctypes.c_char_p
        loaded.cudnnGetVersion.restype = ctypes.c_size_t
        number = int(loaded.cudnnGetVersion())
        self.version = version(number)
        if number < OLDEST_VERSION:
            raise CudnnError(
                f"cuDNN {self.version} cannot be asked without a GPU; 9.8 and later can. {_REMEDY}"
            )

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """The library in `folder`; without one, what the loader finds or PyTorch loaded already.

        Raises CudnnError, with what to install, where there is none.
        """
        paths = [folder / below / _NAME for below in _BELOW] if folder else [Path(_NAME)]
        path = next((path for path in paths if path.exists()), None)
        if folder is not None and path is None:
            raise CudnnError(f"There is no {_NAME} in {folder}. {_REMEDY}")
        try:
            loaded = ctypes.CDLL(str(path or _NAME))
        except OSError as error:
            raise CudnnError(f"cuDNN cannot be loaded: {error}. {_REMEDY}") from error
        _load_cublas(path)
        return cls(loaded)

    def descriptor(self, kind: Kind) -> Descriptor:
        """A new one."""
        return Descriptor(self, kind)

    def check(self, status: int, doing: str) -> None:
        """Raise CudnnError, in cuDNN's words, when a call did not return 0."""
        if status == 0:
            return
        message = ctypes.create_string_buffer(2048)
        self.functions.cudnnGetLastErrorString(message, ctypes.c_size_t(len(message)))
        name = self.functions.cudnnGetErrorString(status).decode()
        said = message.value.decode(errors="replace").strip()
        hint = f" {_REMEDY}" if "LIBRARY" in name else ""
        raise CudnnError(f"cuDNN {self.version}, {doing}: {name} ({status}) {said}".rstrip() + hint)


def _load_cublas(cudnn: Path | None) -> None:
    """From beside cuDNN or where the loader looks. Without it cuDNN would end the process."""
    beside = [cudnn.resolve().parents[2] / "cublas/lib" / name for name in _CUBLAS] if cudnn else []
    for path in (*beside, *_CUBLAS):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path))
            return
    raise CudnnError(f"cuDNN needs {_CUBLAS[0]}, which is not there. {_REMEDY}")


class Descriptor:
    """One of cuDNN's descriptors, freed with this object. Setters return it."""

    def __init__(self, library: Library, kind: Kind) -> None:
        self._library, self._kind = library, kind
        self._functions = library.functions
        self._used: list[Descriptor] = []
        self.pointer = ctypes.c_void_p()
        status = self._functions.cudnnBackendCreateDescriptor(kind, ctypes.byref(self.pointer))
        library.check(status, f"creating {kind.name}")

    def __del__(self) -> None:
        if self.pointer:
            self._functions.cudnnBackendDestroyDescriptor(self.pointer)

    def integers(self, attribute: Attribute, *values: int) -> Self:
        """Set 64-bit integers."""
        return self._set(attribute, Type.INT64, (ctypes.c_int64 * len(values))(*values))

    def index(self, attribute: Attribute, value: int) -> Self:
        """Set a 32-bit integer."""
        return self._set(attribute, Type.INT32, (ctypes.c_int32 * 1)(value))

    def number(self, attribute: Attribute, value: float) -> Self:
        """Set a float."""
        return self._set(attribute, Type.FLOAT, (ctypes.c_float * 1)(value))

    def choice(self, attribute: Attribute, of: Type, value: int) -> Self:
        """Set a value of an enumeration."""
        return self._set(attribute, of, (ctypes.c_int * 1)(value))

    def text(self, attribute: Attribute, text: str) -> Self:
        """Set characters, without an end."""
        data = text.encode()
        return self._set(attribute, Type.CHAR, (ctypes.c_char * len(data)).from_buffer_copy(data))

    def descriptors(self, attribute: Attribute, *values: Descriptor) -> Self:
        """Set finalized descriptors, which live as long as this one."""
        self._used += values
        pointers = (ctypes.c_void_p * len(values))(*(value.pointer for value in values))
        return self._set(attribute, Type.DESCRIPTOR, pointers)

    def finalize(self) -> Self:
        """Have everything checked; afterwards nothing can be set and everything be read."""
        status = self._functions.cudnnBackendFinalize(self.pointer)
        self._library.check(status, f"finalizing {self._kind.name}")
        return self

    def integer(self, attribute: Attribute) -> int:
        """Read a 64-bit integer."""
        value = ctypes.c_int64()
        self._get(attribute, Type.INT64, 1, ctypes.byref(value))
        return value.value

    def characters(self, attribute: Attribute) -> str:
        """Read characters."""
        room = self._get(attribute, Type.CHAR, 0, None)
        text = ctypes.create_string_buffer(room + 1)
        self._get(attribute, Type.CHAR, room, text)
        return text.value.decode()

    def count(self, attribute: Attribute) -> int:
        """How many descriptors can be read."""
        return self._get(attribute, Type.DESCRIPTOR, 0, None)

    def read(self, attribute: Attribute, into: Sequence[Descriptor]) -> int:
        """Read descriptors into new ones of the right kind; how many there were."""
        pointers = (ctypes.c_void_p * len(into))(*(one.pointer for one in into))
        return self._get(attribute, Type.DESCRIPTOR, len(into), pointers)

    def _set(self, attribute: Attribute, of: Type, values: Any) -> Self:
        status = self._functions.cudnnBackendSetAttribute(
            self.pointer, attribute, of, ctypes.c_int64(len(values)), ctypes.byref(values)
        )
        self._library.check(status, f"setting {attribute.name}")
        return self

    def _get(self, attribute: Attribute, of: Type, room: int, into: Any) -> int:
        found = ctypes.c_int64()
        status = self._functions.cudnnBackendGetAttribute(
            self.pointer, attribute, of, ctypes.c_int64(room), ctypes.byref(found), into
        )
        self._library.check(status, f"reading {attribute.name}")
        return found.value
