"""NVML by ctypes: which process holds how many bytes of which GPU (NVML API reference, "Device Queries")."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
SUCCESS, NOT_SUPPORTED, INSUFFICIENT_SIZE = 0, 3, 7
# usedGpuMemory where the driver cannot say (NVML_VALUE_NOT_AVAILABLE).
NOT_AVAILABLE = 2**64 - 1
# How often a list that grew while it was read is asked for again.
MOST_TRIES = 5
CLOCK_SM = 1  # NVML_CLOCK_SM
TEMPERATURE_GPU = 0  # NVML_TEMPERATURE_GPU
NAME_LENGTH = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
# GPUs without memory of their own, should a driver come to answer for their memory.
UNIFIED = ("GB10",)


class NvmlError(Exception):
    """NVML is not there, or does not answer as it should. One line."""


class NvmlMissing(NvmlError):
    """There is no library at all: a host without a GPU, or its driver is yet to be installed."""


class ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_v2_t, which the _v2 and _v3 functions fill (since driver 510)."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("usedGpuMemory", ctypes.c_ulonglong),
        ("gpuInstanceId", ctypes.c_uint),
        ("computeInstanceId", ctypes.c_uint),
    )


class Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Utilization(ctypes.Structure):
    """nvmlUtilization_t, percent."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass(frozen=True)
class Device:
    """A GPU as one sample saw it."""

    name: str
    unified: bool
    """Whether it has no memory of its own, and takes the host's."""
    processes: dict[int, int]
    """Bytes by process number."""
    clock: int | None = None
    """Of its streaming multiprocessors, MHz; None where the driver does not say."""
    most: int | None = None
    """The highest that `clock` can be, MHz."""
    temperature: int | None = None
    """Temperature, Celsius."""
    busy: int | None = None
    """Percent of the last moments in which a kernel ran."""
    reasons: int | None = None
    """A bit for each reason why the clock is not higher (nvmlClocksEventReasons)."""


class Nvml:
    """An open NVML."""

    def __init__(self, library: str = LIBRARY) -> None:
        """Opens and initialises it.

        Raises:
            NvmlMissing: the library is not there.
            NvmlError: the driver is not.
        """
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise NvmlMissing(f"{library} cannot be loaded: {error}") from None
        self._call("nvmlInit_v2")

    def _call(self, name: str, *arguments: Any, also: tuple[int, ...] = ()) -> int:
        """Calls a function; its return code, which is SUCCESS or one of `also`.

        Raises:
            NvmlError: another code, or the library is too old to have it.
        """
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise NvmlError(f"the driver is too old: its NVML has no {name}") from None
        function.restype = ctypes.c_int
        code = int(function(*arguments))
        if code != SUCCESS and code not in also:
            raise NvmlError(f"{name} returned {code}")
        return code

    def sample(self) -> list[Device]:
        """All GPUs with the processes on them.

        Raises:
            NvmlError: one of them does not answer. The others' figures alone would mislead.
        """
        return [self._device(index) for index in range(self.count())]

    def count(self) -> int:
        """How many GPUs there are. Raises NvmlError."""
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return count.value

    def lock_clock(self, index: int, most: int) -> None:
        """Limits a GPU's clock, in MHz, until the driver is loaded anew. Needs root. Raises NvmlError."""
        handle = self._handle(index)
        self._call("nvmlDeviceSetGpuLockedClocks", handle, ctypes.c_uint(0), ctypes.c_uint(most))

    def reset_clock(self, index: int) -> None:
        """Takes the limit of a GPU's clock off. Needs root. Raises NvmlError."""
        self._call("nvmlDeviceResetGpuLockedClocks", self._handle(index))

    def clock(self, index: int) -> int | None:
        """A GPU's clock in MHz; None where the driver does not say. Raises NvmlError: there is no such GPU."""
        return self._clock("nvmlDeviceGetClockInfo", self._handle(index))

    def _handle(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _device(self, index: int) -> Device:
        handle = self._handle(index)
        buffer = ctypes.create_string_buffer(NAME_LENGTH)
        self._call("nvmlDeviceGetName", handle, buffer, ctypes.c_uint(NAME_LENGTH))
        name = buffer.value.decode(errors="replace")
        # A GPU that has no memory of its own has nothing to answer here (nvidia-smi shows N/A).
        code = self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(Memory()), also=(NOT_SUPPORTED,))
        unified = code == NOT_SUPPORTED or any(word in name for word in UNIFIED)
        # A process that computes and draws is in both lists, with the same figure.
        processes = self._processes("nvmlDeviceGetGraphicsRunningProcesses_v3", handle)
        for pid, size in self._processes("nvmlDeviceGetComputeRunningProcesses_v3", handle).items():
            processes[pid] = max(size, processes.get(pid, 0))
        clock, most = self._clock("nvmlDeviceGetClockInfo", handle), self._clock("nvmlDeviceGetMaxClockInfo", handle)
        return Device(name, unified, processes, clock, most, *self._condition(handle))

    def _condition(self, handle: ctypes.c_void_p) -> tuple[int | None, int | None, int | None]:
        """Degrees, percent, and the bits of why the clock is not higher: by the name that every driver has."""
        degrees, rates, reasons = ctypes.c_uint(), Utilization(), ctypes.c_ulonglong()
        sensor, into = ctypes.c_int(TEMPERATURE_GPU), ctypes.byref(degrees)
        return (
            degrees.value if self._told("nvmlDeviceGetTemperature", handle, sensor, into) else None,
            rates.gpu if self._told("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(rates)) else None,
            reasons.value
            if self._told("nvmlDeviceGetCurrentClocksThrottleReasons", handle, ctypes.byref(reasons))
            else None,
        )

    def _clock(self, function: str, handle: ctypes.c_void_p) -> int | None:
        """A clock in MHz."""
        value = ctypes.c_uint()
        return value.value if self._told(function, handle, ctypes.c_int(CLOCK_SM), ctypes.byref(value)) else None

    def _told(self, function: str, *arguments: Any) -> bool:
        """Whether the driver says; whatever goes wrong with it, the figures about memory are worth more."""
        try:
            self._call(function, *arguments)
        except NvmlError:
            return False
        return True

    def _processes(self, function: str, handle: ctypes.c_void_p) -> dict[int, int]:
        room = 64
        for _ in range(MOST_TRIES):
            count = ctypes.c_uint(room)
            infos = (ProcessInfo * room)()
            code = self._call(function, handle, ctypes.byref(count), infos, also=(INSUFFICIENT_SIZE, NOT_SUPPORTED))
            if code == NOT_SUPPORTED:
                return {}
            if code == SUCCESS:
                found: dict[int, int] = {}
                for info in infos[: min(count.value, room)]:
                    if info.usedGpuMemory != NOT_AVAILABLE:
                        # With MIG a process is listed once for each instance.
                        found[info.pid] = found.get(info.pid, 0) + info.usedGpuMemory
                return found
            room = max(count.value, room) * 2  # more may come before the next try
        raise NvmlError(f"{function}: the list of processes grows faster than it can be read")
