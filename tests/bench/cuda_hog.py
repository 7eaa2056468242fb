"""A CUDA job without any package: `python3 cuda_hog.py GIB` holds so much device memory until it is ended.

Prints `ready`, or one line that says what the driver refused, and ends with 1.
"""

from __future__ import annotations

import ctypes
import signal
import sys

GIB = 2**30


def main() -> int:
    size = int(float(sys.argv[1]) * GIB)
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    calls = (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), 0)),
        ("cuCtxCreate_v2", (ctypes.byref(context), 0, device)),
        ("cuMemAlloc_v2", (ctypes.byref(pointer), ctypes.c_size_t(size))),
        ("cuMemsetD8_v2", (pointer, 1, ctypes.c_size_t(size))),
    )
    for name, arguments in calls:
        if code := cuda[name](*arguments):
            print(f"{name}: error {code}")
            return 1
    print("ready", flush=True)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
