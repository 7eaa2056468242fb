"""Evidence of what the lab does not have (a GPU, a timer, a Spark's hardware): written by hand, and marked as such."""

from __future__ import annotations

from typing import Any

GPU = "1 NVIDIA GPUs\n000f:01:00.0 0x10de:0x2e12\n"
KERNEL = "6.11.0-1016-nvidia"
BOOT = f"running {KERNEL}\nkernel {KERNEL} initrd=81000000 modules=yes nvidia="
SMI = "nvidia_smi"
TORCH = "cuda: Optional[str] = '13.0'\nlibtorch_cuda.so present\n"

# Control → observation → what it printed where it passes, and where it fails.
DOUBLES: dict[str, dict[str, tuple[str, str]]] = {
    "SPK-HOST-01": {"architecture": ("aarch64\n", "x86_64\n")},
    "SPK-HOST-02": {"processors": ("20\n", "19\n")},
    "SPK-HOST-03": {"memory": ("MemTotal:       125520544 kB\n", "MemTotal:       92274688 kB\n")},
    "SPK-HOST-04": {SMI: ("NVIDIA GB10, 580.95.05, 12.1\n", "NVIDIA H100 80GB HBM3, 580.95.05, 9.0\n")},
    "SPK-HOST-05": {SMI: ("NVIDIA GB10, 580.95.05, 12.1\n", "NVIDIA GB10, 570.158.01, 12.1\n")},
    "SPK-HOST-06": {
        "nvcc": (
            "Cuda compilation tools, release 13.0, V13.0.88\n",
            "Cuda compilation tools, release 12.9, V12.9.41\n",
        )
    },
    "SPK-HOST-07": {"release": ('VERSION_ID="24.04"\nID=ubuntu\n', 'VERSION_ID="13"\nID=debian\n')},
    "SPK-HOST-14": {"kernels": (f"{BOOT}yes\n", f"{BOOT}no\n")},
    "SPK-STACK-04": {
        "stack_libraries": (
            "2 libraries\ntorch/lib/libtorch_cuda.so libcudart.so.13\nvllm/_C.abi3.so libcudart.so.13\n",
            "2 libraries\ntorch/lib/libtorch_cuda.so libcudart.so.13\nvllm/_C.abi3.so libcudart.so.12\n",
        ),
        "stack_torch": (TORCH, TORCH),
    },
    "SPK-STACK-05": {"stack_torch": (TORCH, "cuda: Optional[str] = None\nlibtorch_cuda.so absent\n")},
    "SPK-WATCHDOG-09": {
        "gpu_sample": (
            '{"age": 0.6, "devices": [{"name": "NVIDIA GB10", "processes": {"4711": 21474836480}, "unified": true}],'
            ' "error": null, "version": 1}\n',
            '{"age": 3.2, "devices": [], "error": "nvmlInit_v2 returned 18", "version": 1}\n',
        )
    },
    "SPK-RESET-01": {
        "hardware_timer": (
            "runtime 60000000\npanic 30\n1 timers\nwatchdog0 active\n",
            "runtime 60000000\npanic 30\n1 timers\nwatchdog0 inactive\n",
        )
    },
    "SPK-RESET-02": {"hardware_timer_configured": ("1 lines\n60s\n", "2 lines\n60s\noff\n")},
    "SPK-FLEET-04": {SMI: ("NVIDIA GB10, 580.95.05, 12.1\n", "NVIDIA GB10, 580.142, 12.1\n")},
}

LACKS = {"SPK-RESET": "the lab has no hardware timer", "SPK-STACK": "the stack of lab hosts has no torch"}
NO_GPU = "the lab has no NVIDIA GPU"
ARMED = {"hardware_watchdog": {"armed": True}}


def why(control: str) -> str:
    """What the lab lacks for a control."""
    return LACKS.get(control.rpartition("-")[0], NO_GPU)


def settings_of(control: str) -> dict[str, Any]:
    """The settings under which a double is judged."""
    return ARMED if control.startswith("SPK-RESET-") else {}
