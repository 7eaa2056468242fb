"""Evidence of what the lab does not have (a GPU, a timer, a Spark's hardware): written by hand, and marked as such."""

from __future__ import annotations

import json
from typing import Any

IMAGE = f"vllm/vllm-openai@sha256:{'a1' * 32}"
OTHER = f"vllm/vllm-openai@sha256:{'b2' * 32}"
SCOPE = "/training.slice/docker-4711.scope"
SERVER: dict[str, Any] = {
    "image": IMAGE,
    "state": "running",
    "cgroup": SCOPE,
    "memory_max": {SCOPE: str(24 * 2**30), "/training.slice": str(100 * 2**30)},
    "command": ["python3", "/usr/local/bin/vllm", "serve", "/models/a", "--gpu-memory-utilization", "0.4"],
}
ACTIVE = "Id=sparkfleet-vllm.service\nLoadState=loaded\nActiveState=active\nUnitFileState="
ELSEWHERE = {**SERVER, "cgroup": "/system.slice/docker-4711.scope", "memory_max": {}}
GREEDY = {**SERVER, "command": [*SERVER["command"], "--gpu-memory-utilization=0.95"]}
GPU = "1 NVIDIA GPUs\n000f:01:00.0 0x10de:0x2e12\n"
KERNEL = "6.11.0-1016-nvidia"
BOOT = f"running {KERNEL}\nkernel {KERNEL} initrd=81000000 modules=yes nvidia="
SMI = "nvidia_smi"
CLOCKED = (
    "Id=sparkfleet-gpu-clock.service\nLoadState=loaded\nActiveState=active\nResult=success\nUnitFileState=enabled\n"
    "ExecStart={{ path=/opt/sparkfleet/bin/sparkfleet-gpu-clock ; "
    "argv[]=/opt/sparkfleet/bin/sparkfleet-gpu-clock set 2100 ; "
    "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }}\n"
    "ExecMainStartTimestampMonotonic=9000000\nActiveEnterTimestampMonotonic=9400000\n\n"
    "Id=sys-bus-pci-drivers-nvidia.device\nLoadState=loaded\nActiveState=active\n"
    "ActiveEnterTimestampMonotonic={loaded}\n"
)
RULE = (
    'ACTION=="add", SUBSYSTEM=="drivers", DEVPATH=="/bus/pci/drivers/nvidia", '
    'RUN+="/usr/bin/systemctl --no-block restart sparkfleet-gpu-clock.service"\n'
)
SMI_VERSION = """NVIDIA-SMI version  : 580.95.05
NVML version        : 580.95
DRIVER version      : 580.95.05
CUDA Version        : 13.0
"""
DESKTOP = "Id=gdm.service\nLoadState=loaded\nActiveState={}\n"
TIMER_UNIT = "Id=sparkfleet-hardware-watchdog.service\nLoadState=loaded\nUnitFileState=enabled\n"
WARM = "0, 61, 2405, 3003, 97, 0x0000000000000000\n"
SAMPLED = '{{"age": 0.6, "devices": [{{"name": "NVIDIA GB10", "hottest": {hottest}}}], "error": null}}\n'
TORCH = "cuda: Optional[str] = '13.0'\nlibtorch_cuda.so present\n"

PEOPLE = "2 training users\nalice\t1001\talice,training\nbob\t1002\tbob,training\n"
LINKS = """2 addresses
10.20.0.11/24 enp1s0f1np1 mtu=9000 speed=200000 carrier=1 rdma=rocep1s0f1:ACTIVE mac=4c:bb:47:00:00:01
10.20.1.11/24 enP2p1s0f1np1 mtu=9000 speed=200000 carrier=1 rdma=roceP2p1s0f1:ACTIVE mac=4c:bb:47:00:00:02
"""
ROUTES = "2 routes\n10.20.0.0/24 enp1s0f1np1\n10.20.1.0/24 enP2p1s0f1np1\n"
OUR_FILE = "/etc/netplan/60-sparkfleet-cluster-link.yaml"
IN_FILES = f"2 addresses\n10.20.0.11/24 {OUR_FILE}\n10.20.1.11/24 {OUR_FILE}\n"

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
            "Cuda compilation tools, release 13.2, V13.2.78\n",
        ),
        "nvidia_cuda": (SMI_VERSION, SMI_VERSION),
    },
    "SPK-HOST-15": {
        "boot_ends": (
            "1 ends in 7 days\n2026-12-01T03:03:46Z shut\n",
            "2 ends in 7 days\n2026-12-01T03:03:46Z shut\n2026-12-01T03:08:02Z cut\n",
        )
    },
    "SPK-HOST-17": {
        "broken_packages": (
            "0 packages not whole\n",
            "1 packages not whole\nnvidia-driver-580-open half-configured\n",
        )
    },
    "SPK-HOST-18": {"held_packages": ("0 held packages\n", "1 held packages\nlinux-image-nvidia-hwe-24.04\n")},
    "SPK-HOST-16": {
        "container_toolkit": ("1.19.0-1\n", "1.19.1-1\n"),
        "kernel": ("6.17.0-1032-nvidia\n", "6.17.0-1032-nvidia\n"),
        SMI: ("NVIDIA GB10, 580.173.02, 12.1\n", "NVIDIA GB10, 580.173.02, 12.1\n"),
    },
    "SPK-HOST-19": {
        "autoremove": (
            "0 packages of the platform that autoremove takes\n",
            "1 packages of the platform that autoremove takes\nnvidia-spark-fstab-config\n",
        )
    },
    "SPK-HOST-20": {
        "nvidia_cuda": (SMI_VERSION, SMI_VERSION.replace("580.95.05", "570.158.01").replace("13.0", "12.8"))
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
    "SPK-WATCHDOG-10": {
        "observer_state": (
            '{"age": 3.1, "alarms": [], "problems": {}}\n',
            '{"age": 7.4, "alarms": [{"about": "3", "kind": "driver_burst", "remedy": "save what runs, and start '
            'nothing large before it has ended: hosts have hung after such bursts", "text": "the NVIDIA driver was '
            'refused memory 198 times in a burst, with 22.0 GiB available"}], "problems": {}}\n',
        )
    },
    "SPK-RESET-01": {
        "hardware_timer": (
            "runtime 60000000\npanic 30\n1 timers\nwatchdog0 active\n",
            "runtime 60000000\npanic 30\n1 timers\nwatchdog0 inactive\n",
        )
    },
    "SPK-RESET-02": {
        "hardware_timer_configured": ("1 lines\n60s\n", "2 lines\n60s\noff\n"),
        "hardware_timer_unit": (TIMER_UNIT, TIMER_UNIT),
    },
    "SPK-RESET-03": {"hardware_timer_boot": ("1 timers\nwatchdog0 0\n", "1 timers\nwatchdog0 32\n")},
    "SPK-CLOCK-01": {
        "gpu_clock_units": (CLOCKED.format(loaded=4000000), CLOCKED.format(loaded=99000000)),
        "gpu_figures": ("0, 61, 2087, 3003, 97, 0x0000000000000002\n", "0, 61, 2400, 3003, 97, 0x0000000000000000\n"),
    },
    "SPK-CLOCK-02": {
        "gpu_clock_rules": (f"1 lines\n{RULE}", "0 lines\n"),
        "gpu_clock_units": (CLOCKED.format(loaded=4000000), CLOCKED.format(loaded=4000000)),
    },
    "SPK-HEAT-01": {
        "gpu_slowed": ("0, 0, 0\n", "0, 0, 403805\n"),
        "gpu_figures": (WARM, WARM),
    },
    "SPK-HEAT-02": {"gpu_figures": (WARM, "0, 48, 806, 3003, 96, 0x0000000000000000\n")},
    "SPK-HEAT-03": {
        "gpu_figures": (WARM, WARM),
        "gpu_sample": (SAMPLED.format(hottest=78), SAMPLED.format(hottest=90)),
    },
    "SPK-HEADLESS-01": {"desktop_manager": (DESKTOP.format("inactive"), DESKTOP.format("active"))},
    "SPK-HEADLESS-02": {"default_target": ("multi-user.target\n", "graphical.target\n")},
    "SPK-SERVER-01": {"vllm_image": (f'["{IMAGE}"]\n', f'["{OTHER}"]\n')},
    "SPK-SERVER-02": {"vllm_container": (f"{json.dumps(SERVER)}\n", f"{json.dumps(ELSEWHERE)}\n")},
    "SPK-SERVER-03": {"vllm_container": (f"{json.dumps(SERVER)}\n", f"{json.dumps(GREEDY)}\n")},
    "SPK-SERVER-04": {"vllm_unit": (f"{ACTIVE}enabled\n", f"{ACTIVE}disabled\n")},
    "SPK-FLEET-07": {"dgx_release": ("DGX OS 7.5.0\n", "DGX OS 7.2.3\n")},
    "SPK-LINK-01": {"links": (LINKS, LINKS.replace("carrier=1", "carrier=0", 1))},
    "SPK-LINK-02": {"links": (LINKS, LINKS.replace("mtu=9000", "mtu=1500", 1))},
    "SPK-LINK-03": {"links": (LINKS, LINKS.replace("speed=200000", "speed=100000", 1))},
    "SPK-LINK-04": {"link_routes": (ROUTES, ROUTES.replace("2 routes", "3 routes") + "default enp1s0f1np1\n")},
    "SPK-LINK-05": {"links_configured": (IN_FILES, f"{IN_FILES}10.20.0.11/24 /etc/netplan/40-cx7.yaml\n")},
    "SPK-LINK-06": {"links": (LINKS, LINKS.replace("0.11/", "0.12/").replace("1.11/", "1.13/"))},
    "SPK-FLEET-08": {"training_people": (PEOPLE, PEOPLE.replace("1001", "1003"))},
    "SPK-FLEET-04": {SMI: ("NVIDIA GB10, 580.95.05, 12.1\n", "NVIDIA GB10, 580.142, 12.1\n")},
}

# What the second host printed, for controls that compare hosts.
SECOND_HOST = {"SPK-LINK-06": LINKS.replace("0.11/", "0.12/").replace("1.11/", "1.12/")}

LACKS = {
    "SPK-FLEET-08": "the lab's users have the same numbers on all hosts",
    "SPK-LINK": "the lab has no ConnectX-7",
    # A lab host can show these (`breaks`): take them out of DOUBLES before the next recording.
    **dict.fromkeys(("SPK-HOST-15", "SPK-HOST-17", "SPK-HOST-18"), "not recorded on a lab host yet"),
    "SPK-RESET": "the lab has no hardware timer",
    "SPK-HEADLESS": "the lab has no desktop",
    "SPK-STACK": "the stack of lab hosts has no torch",
    "SPK-SERVER": "vLLM's image cannot be had in the lab",
}
NO_GPU = "the lab has no NVIDIA GPU"
ARMED = {"hardware_watchdog": {"armed": True}}
SERVES = {"vllm_container": {"state": "present", "digest": IMAGE.partition("@")[2], "model": "/models/a"}}
LINKED = {"cluster_link": {"state": "present", "host": "spark1", "hosts": ["spark1", "spark2"]}}
CHOSEN: dict[str, dict[str, Any]] = {
    "SPK-LINK-": LINKED,
    "SPK-RESET-": ARMED,
    "SPK-SERVER-": SERVES,
    "SPK-HEADLESS-": {"headless": {"state": "present"}},
    "SPK-CLOCK-": {"gpu_clock": {"state": "present"}},
}


def why(control: str) -> str:
    """What the lab lacks for a control."""
    return LACKS.get(control) or LACKS.get(control.rpartition("-")[0], NO_GPU)


def settings_of(control: str) -> dict[str, Any]:
    """The settings under which a double is judged."""
    return next((chosen for prefix, chosen in CHOSEN.items() if control.startswith(prefix)), {})
