"""CUDA's driver API by ctypes: what it takes to hold some memory (CUDA Driver API reference, "Memory Management")."""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libcuda.so.1"
ATTACH_GLOBAL = 1
"""CU_MEM_ATTACH_GLOBAL."""


class CudaError(Exception):
    """The driver is not there, or refuses. One line."""


class Cuda:
    """A context on the first GPU."""

    def __init__(self, library: str = LIBRARY) -> None:
        """Opens it.

        Raises:
            CudaError: there is no driver, or no GPU.
        """
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise CudaError(f"{library} cannot be loaded: {error}") from error
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise CudaError(f"the driver has no {name}")
        function.restype = ctypes.c_int
        code = int(function(*arguments))
        if code:
            raise CudaError(f"{name} returned {code}")

    def allocate(self, size: int, managed: bool) -> None:
        """Takes memory, and writes all of it from the GPU. It is given back when the process ends."""
        address = ctypes.c_uint64()
        if managed:
            self._call("cuMemAllocManaged", ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(ATTACH_GLOBAL))
        else:
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self._call("cuMemsetD8_v2", address, ctypes.c_ubyte(1), ctypes.c_size_t(size))
        self._call("cuCtxSynchronize")

    def info(self) -> tuple[int, int]:
        """What the driver calls free and total, in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value
