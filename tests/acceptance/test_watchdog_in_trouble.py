"""The watchdog in trouble: stopped, without a good configuration, with an NVML that hangs, is absent, or decides."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.watching import (
    SAVED,
    STATE,
    UNIT,
    active,
    connecting,
    denied,
    ended,
    events,
    holds,
    idle_seconds,
    job,
    prepare,
    until,
    victims,
    well,
)
from tests.lab import Host, Lab

DOUBLE = Path(__file__).resolve().parents[1] / "doubles" / "nvml.c"
SAMPLER = "sparkfleet-gpu-sampler"
SAMPLE = "/run/sparkfleet/gpu/sample.json"


@pytest.fixture(scope="module")
def idle(lab: Lab, spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The host deployed and saved; how long new SSH connections take while it is idle."""
    prepare(lab, spark1, tmp_path_factory.mktemp("fleet"))
    return idle_seconds(spark1)


@pytest.fixture
def host(spark1: Host, idle: list[float]) -> Host:
    spark1.restore(SAVED)
    return spark1


def main_pid(host: Host) -> str:
    return host.console_run(f"systemctl show -P MainPID {UNIT}").stdout.strip()


def test_the_hardened_unit_can_do_what_it_must(host: Host) -> None:
    """And nothing of what it tried was denied. Prints what systemd thinks of it, and what it holds."""
    print(host.console_run(f"systemd-analyze security {UNIT} {SAMPLER} --no-pager | grep Overall").stdout)
    print(host.console_run(f"grep -E 'Vm(RSS|Lck|Swap)' /proc/{main_pid(host)}/status").stdout)
    candidates = host.sudo("spark-watchdog candidates").stdout
    assert "ssh.service" in candidates
    assert denied(host) == ""


def test_a_stopped_watchdog_is_replaced_and_the_new_one_ends_the_hog(host: Host, idle: list[float]) -> None:
    before = main_pid(host)
    host.console_run(f"kill -STOP {before}")
    with connecting(host) as watch:
        job(host, "hog", "alice", "4000 slow")
        ended(host, "hog")
    assert main_pid(host) not in (before, "0")
    assert "Watchdog timeout" in host.console_run(f"journalctl -b --no-pager -u {UNIT}").stdout
    assert victims(host) == ["/training.slice/hog.service"]
    well(host, watch, idle)


def test_a_restart_with_a_broken_configuration_guards_with_the_last_accepted_one(host: Host, idle: list[float]) -> None:
    host.console_run(f"echo 'nonsense = 1' >> /etc/sparkfleet/watchdog.toml; systemctl restart {UNIT}")
    assert active(host, UNIT) == ["active"]
    said = host.console_run(f"journalctl -b --no-pager -u {UNIT} -p crit -o cat").stdout
    assert said.count("\n") == 1
    assert "GUARDED BY THE LAST ACCEPTED configuration, /var/lib/sparkfleet/watchdog/accepted.toml" in said
    assert "nonsense: unknown key" in said
    with connecting(host) as watch:
        job(host, "hog", "alice", "4000 slow")
        ended(host, "hog")
    assert victims(host) == ["/training.slice/hog.service"]
    well(host, watch, idle)


def test_without_any_good_configuration_it_does_not_start_and_is_not_tried_again_and_again(host: Host) -> None:
    host.console_run(
        "echo 'nonsense = 1' >> /etc/sparkfleet/watchdog.toml; rm /var/lib/sparkfleet/watchdog/accepted.toml;"
        f" systemctl restart {UNIT}",
        check=False,
    )
    until(host, f"systemctl is-failed -q {UNIT}")
    said = host.console_run(f"journalctl -b --no-pager -u {UNIT} -p crit -o cat").stdout
    assert said.count("NOT GUARDED") == 1
    assert host.console_run(f"systemctl show -P NRestarts {UNIT}").stdout == "0\n"


@pytest.fixture
def double(host: Host, tmp_path: Path) -> Host:
    """The host with a library that says what /run/nvml-double says; the sampler loads it."""
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, DOUBLE], check=True)
    host.console_run(
        "cat > /tmp/double.b64; base64 -d /tmp/double.b64 > /usr/local/lib/libnvidia-ml.so.1; ldconfig",
        input=subprocess.run(["base64", library], capture_output=True, text=True, check=True).stdout,
    )
    folder = f"/etc/systemd/system/{SAMPLER}.service.d"
    host.console_run(
        f"mkdir -p {folder}; cat > {folder}/double.conf; : > /etc/nvml-double; systemctl daemon-reload",
        input="[Service]\nEnvironment=NVML_DOUBLE=/etc/nvml-double\n",
    )
    return host


def reports(host: Host, lines: str) -> None:
    """Has the double say something else, and the sampler read it from a new start on."""
    host.console_run("cat > /etc/nvml-double", input=lines)
    host.console_run(f"systemctl restart --no-block {SAMPLER}")


# As a driver takes memory: charged to no cgroup, in no process's RSS, known by NVML alone. Here it is huge pages.
TAKES = """\
pages=0
while systemctl is-active -q cuda; do
    pages=$((pages + 20)); echo $pages > /proc/sys/vm/nr_hugepages
    held=$(($(cat /proc/sys/vm/nr_hugepages) * 2097152 + 104857600))
    printf 'device GB10 unified\\ncompute %s %s\\ncompute {served}\\n' {pid} $held > /etc/nvml-double.new
    mv /etc/nvml-double.new /etc/nvml-double
    sleep 0.5
done
echo 0 > /proc/sys/vm/nr_hugepages
"""


def test_a_job_that_takes_gpu_memory_is_ended_and_not_one_with_a_larger_rss(double: Host, idle: list[float]) -> None:
    """Not the one that fills memory's smaller part either, nor one that has held GPU memory all the while."""
    for name, user in (("cuda", "alice"), ("served", "bob")):
        job(double, name, user, "40")
    job(double, "rss", "bob", "300")
    holds(double, "rss", 300)
    pid, served = double.console_run("systemctl show -P MainPID cuda served | xargs").stdout.split()
    # No more than the host has: else it is not believed.
    reports(double, f"device GB10 unified\ncompute {pid} {100 << 20}\ncompute {served} {600 << 20}\n")
    until(double, f"grep -q '\"{pid}\"' {SAMPLE}")
    double.console_run("cat > /root/takes", input=TAKES.format(pid=pid, served=f"{served} {600 << 20}"))
    with connecting(double) as watch:
        double.console_run("systemd-run --quiet --unit=driver sh /root/takes")
        ended(double, "cuda")
    first = events(double)[0]
    assert (first["victim"]["cgroup"], first["gpu_note"]) == ("/training.slice/cuda.service", "")
    assert first["victim"]["gpu"] >= 200 << 20
    assert victims(double) == ["/training.slice/cuda.service"]
    assert active(double, "rss", "served") == ["active", "active"]
    assert watch.failures == []
    assert "cuda.service" in double.run("spark-why -n 9", user="alice").stdout


def test_nvml_that_hangs_holds_nobody_up(double: Host, idle: list[float]) -> None:
    """The sampler's own watchdog ends it after a while; the memory's goes on without its figures meanwhile."""
    reports(double, "hang nvmlDeviceGetCount_v2\n")
    until(double, f"[ $(systemctl show -P MainPID {SAMPLER}) != 0 ]")
    with connecting(double) as watch:
        job(double, "hog", "alice", "4000 slow")
        ended(double, "hog")
    assert victims(double) == ["/training.slice/hog.service"]
    assert "GPU sampler" in events(double)[0]["gpu_note"]
    well(double, watch, idle)


def test_without_nvml_it_says_why_it_has_no_figures(host: Host) -> None:
    until(host, f"test -s {SAMPLE}")
    sample = json.loads(host.console_run(f"cat {SAMPLE}").stdout)
    assert "libnvidia-ml.so.1 cannot be loaded" in sample["error"]
    assert json.loads(host.console_run(f"cat {STATE}").stdout)["policy"]["term_below"] == 256 << 20
