"""The GPU's clock on a host without a GPU: a double of NVML keeps the limit as the driver does.

And a driver's module that is there stands for NVIDIA's in the udev rule: it is really unloaded and loaded.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.deploying import all_but, deploy, fleet, wait_for
from tests.lab import Host, Lab

DOUBLE = Path(__file__).resolve().parents[1] / "doubles" / "nvml.c"
UNIT = "sparkfleet-gpu-clock.service"
RULES = "/etc/udev/rules.d/60-sparkfleet-gpu-clock.rules"
DRIVERS = ("ena", "e1000e", "igb", "nvme", "ixgbevf", "vmxnet3")
"""PCI drivers that can come and go; which of them a host's kernel has is up to its distribution."""
LIMITED = "grep -qx '0 1800' /var/lib/nvml/script.0"
pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def host(spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host whose NVML says that there is one GPU, which would run at 2800 MHz."""
    library = tmp_path_factory.mktemp("double") / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, DOUBLE], check=True)
    packed = subprocess.run(["base64", library], capture_output=True, text=True, check=True).stdout
    # Before the deploy, which refuses a host without the library; the unit gets to know where the double's words are.
    spark1.console_run(
        "cat > /root/double.b64; base64 -d /root/double.b64 > /usr/local/lib/libnvidia-ml.so.1; ldconfig;"
        " mkdir -p /var/lib/nvml; printf 'device GB10-double own\\nclock 2800\\n' > /var/lib/nvml/script;"
        f" mkdir -p /etc/systemd/system/{UNIT}.d; printf '[Service]\\nEnvironment=NVML_DOUBLE=/var/lib/nvml/script\\n"
        f"ReadWritePaths=/var/lib/nvml\\n' > /etc/systemd/system/{UNIT}.d/double.conf",
        input=packed,
    )
    return spark1


def fleet_file(lab: Lab, host: Host, folder: Path, **settings: object) -> Path:
    chosen = {**all_but("gpu_clock"), "gpu_clock": settings}
    return fleet(lab, [host], folder / "fleet.yaml", defaults=chosen)


def limit(host: Host) -> str:
    """What the driver (the double) is limited to."""
    return host.console_run("cat /var/lib/nvml/script.0 2>/dev/null || echo none").stdout.strip()


def test_it_is_limited_now_and_a_second_deploy_changes_nothing(lab: Lab, host: Host, tmp_path: Path) -> None:
    path = fleet_file(lab, host, tmp_path, state="present", max=2100)
    first = deploy(lab, path)
    assert first.rc == 0, first.output
    assert limit(host) == "0 2100"
    assert deploy(lab, path).changes(host.name) == {}


def test_another_limit_is_set_at_once(lab: Lab, host: Host, tmp_path: Path) -> None:
    assert deploy(lab, fleet_file(lab, host, tmp_path, state="present", max=1800)).rc == 0
    assert limit(host) == "0 1800"


def test_it_is_limited_again_after_a_boot(host: Host) -> None:
    host.console_run("rm /var/lib/nvml/script.0")  # the driver's memory does not survive a boot
    host.reboot()
    wait_for(host, LIMITED)


def test_it_is_limited_again_when_the_driver_is_loaded_anew(host: Host) -> None:
    found = host.console_run(f"for name in {' '.join(DRIVERS)}; do modinfo -F name $name 2>/dev/null; done").stdout
    assert found.strip(), f"this kernel has none of {DRIVERS}"
    name = found.split()[0]
    host.console_run(f"modprobe {name}; modprobe -r {name}; sed -i s,drivers/nvidia,drivers/{name}, {RULES}")
    host.console_run("udevadm control --reload; rm /var/lib/nvml/script.0")
    host.console_run(f"modprobe {name}")
    wait_for(host, LIMITED)
    host.console_run(f"modprobe -r {name}; rm /var/lib/nvml/script.0")
    assert limit(host) == "none"
    host.console_run(f"modprobe {name}")
    wait_for(host, LIMITED)


def test_a_driver_that_does_not_answer_yet_is_tried_again(host: Host) -> None:
    host.console_run("rm -f /var/lib/nvml/script.0; echo 'fail nvmlInit_v2 9' >> /var/lib/nvml/script")
    host.console_run(f"systemctl restart --no-block {UNIT}; sleep 8")
    assert limit(host) == "none"
    host.console_run("sed -i /fail/d /var/lib/nvml/script")
    wait_for(host, LIMITED)


def test_absent_takes_it_off_and_leaves_nothing(lab: Lab, host: Host, tmp_path: Path) -> None:
    done = deploy(lab, fleet_file(lab, host, tmp_path, state="absent"))
    assert done.rc == 0, done.output
    assert limit(host) == "none"
    left = f"ls -d {RULES} /etc/systemd/system/{UNIT} /opt/sparkfleet/bin/sparkfleet-gpu-clock /opt/sparkfleet/lib/gpu*"
    assert host.console_run(f"{left} 2>/dev/null", check=False).stdout == ""
