"""What an audit costs, beside the same checks as plain testinfra tests. `python -m tests.bench.audit`

All ratios come from one run on one machine, measured in turn: a quiet machine, please. It wants lab hosts that are
deployed (spark1 and spark2 of the lab that `$SPARKFLEET_LAB` names, as tests.compliance.record saves them), or makes
them so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparkfleet.audit.collect import collect, target_of
from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.judge import judge_run
from sparkfleet.audit.model import Evidence, HostRun, Observation
from sparkfleet.settings import HostSettings, load_fleet
from tests.compliance.fixtures import BY_ID, load, path_of
from tests.compliance.record import SAVED, SETTINGS, green
from tests.integration.deploying import environment, fleet
from tests.lab import Host, Lab, LabError

SPARKFLEET = Path(sys.executable).with_name("sparkfleet")
PYTEST = Path(sys.executable).with_name("pytest")
ROUNDS = 3
MANY = 200

# As testinfra's documentation writes tests: one command (or more) a check, over its ssh backend, sudo for some.
PLAIN = """\
import pytest

COMMANDS = [
    "cat /proc/swaps", "awk '$3 == \\"swap\\"' /etc/fstab", "systemctl show --all -p Id,LoadState '*.swap'",
    "cat /proc/$(systemctl show -P MainPID ssh.service)/oom_score_adj", "cat /proc/self/oom_score_adj",
    "sh -c 'echo -1 > /proc/self/oom_score_adj' || true", "grep -lx -- -1000 /proc/[0-9]*/oom_score_adj || true",
    "systemctl show -P OOMScoreAdjust ssh.service", "cat /sys/fs/cgroup/system.slice/ssh.service/memory.min",
    "systemctl show -P MemoryMin ssh.service", "systemctl show -P UnitFileState ssh.service",
    "systemctl show -P NeedDaemonReload ssh.service", "env", "bash -lc env", "zsh -lc env", "su - admin -c env || true",
    "systemd-run --user --wait --pipe env", "cat /etc/environment", "test -d /usr/local/cuda",
    "/sbin/ldconfig -p", "uv --version", "uvx --version", "uv cache dir", "stat -Lc '%U %a' /usr/local/bin/uv",
    "uname -m", "nproc", "head -1 /proc/meminfo", "cat /etc/os-release", "stat -fc %T /sys/fs/cgroup",
    "systemctl is-active earlyoom systemd-oomd nohang || true", "timedatectl show -p NTPSynchronized", "stat -f /",
    "test ! -e /run/reboot-required", "ls /boot", "cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub",
    "uname -r",
    # training_slice
    "systemctl show -P MemoryMax training.slice", "cat /sys/fs/cgroup/training.slice/memory.max || true",
    "systemctl show -P TasksMax training.slice", "systemctl show -P MemoryMax user-1001.slice",
    "systemctl show -P MemoryMax user-1000.slice", "systemctl is-active sparkfleet-launcher.socket",
    "systemctl is-enabled sparkfleet-launcher.socket", "getent group docker sudo lxd || true",
    "cat /etc/docker/daemon.json || true", "cat /sys/fs/cgroup/training.slice/*/cgroup.procs || true",
    # watchdog, hardware_watchdog
    "systemctl is-active sparkfleet-watchdog", "cat /run/sparkfleet/watchdog/state.json",
    "systemctl show -P ExecMainStatus sparkfleet-watchdog",
    "cat /proc/$(systemctl show -P MainPID sparkfleet-watchdog)/oom_score_adj",
    "grep VmLck /proc/$(systemctl show -P MainPID sparkfleet-watchdog)/status",
    "cat /sys/fs/cgroup/system.slice/memory.min", "systemctl is-enabled sparkfleet-watchdog",
    "systemctl show -P MemoryMin sparkfleet-watchdog", "cat /run/sparkfleet/gpu/sample.json || true",
    "systemctl show -P RuntimeWatchdogUSec", "cat /proc/sys/kernel/panic",
    # stack, tools
    "ls -d /opt/sparkfleet/stacks/current/lib/python3*/site-packages/*.dist-info",
    "find -L /opt/sparkfleet/stacks/current -newercc /opt/sparkfleet/stacks/current/sparkfleet.json",
    "find -L /opt/sparkfleet/stacks/current ! -user root -o -perm /022",
    "ldd /opt/sparkfleet/stacks/current/lib/python3*/site-packages/*/*.so || true",
    "ls -d /opt/sparkfleet/stacks/current/lib/python3*/site-packages/torch/version.py || true",
    "ls -d /opt/sparkfleet/stacks/current/lib/python3*/site-packages/flash_attn* || true",
    "spark-python -I -c 'import sys; print(sys.prefix)'", "spark-doctor --help", "spark-estimate --help",
    "spark-field-report --help", "spark-profile --help", "find -L /opt/sparkfleet/lib/tools/current -perm /022",
]
SUDO = ["sshd -T", "sudo -i env", "systemd-run --wait --pipe -p EnvironmentFile=-/etc/sparkfleet/cuda.env env"]


@pytest.mark.parametrize("command", COMMANDS)
def test_check(host, command):
    host.run(command)


@pytest.mark.parametrize("command", SUDO)
def test_root(host, command):
    if host.run("sudo -n true").rc == 0:  # testinfra has no way to give a password
        with host.sudo():
            host.run(command)
"""


def timed(command: list[str | Path], env: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    return time.monotonic() - began


def judged() -> tuple[int, float]:
    """How many verdicts 200 hosts and all controls are, and the seconds of CPU that judging them takes."""
    observations: dict[str, Observation] = {}
    for ident in BY_ID:
        for evidence in load(path_of(ident, "pass")).evidence().values():
            observations.update(evidence.observations)
    settings = HostSettings.model_validate({"ssh": {"protect": {"cron.service": "16MiB"}}})
    runs = [HostRun(f"spark{number}", Evidence(observations)) for number in range(MANY)]
    began = time.process_time()
    verdicts = judge_run(runs, {run.name: settings for run in runs}, CONTROLS)
    return len(verdicts), time.process_time() - began


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    lab = Lab()
    hosts: list[Host] = [lab.host(name) for name in ("spark1", "spark2")]
    os.environ["SPARKFLEET_SUDO_PASSWORD_COMMAND"] = f"cat {lab.admin_password_file}"
    table = Table("what", "figure")
    with tempfile.TemporaryDirectory() as directory:
        path = fleet(lab, hosts, Path(directory) / "fleet.yaml", settings=SETTINGS)
        try:
            for host in hosts:
                host.restore(SAVED)
        except LabError:
            green(lab, hosts, path)
        env = environment(lab, path)
        plain = Path(directory) / "test_plain.py"
        plain.write_text(PLAIN)
        names = ",".join(f"ssh://{host.name}" for host in hosts)
        testinfra: list[str | Path] = [
            PYTEST,
            "-q",
            "-p",
            "no:cacheprovider",
            plain,
            f"--hosts={names}",
            f"--ssh-config={lab.ssh_config}",
        ]
        ours: list[float] = []
        theirs: list[float] = []
        probes: list[float] = []
        connections: list[float] = []
        loaded = load_fleet(path)
        for _ in range(options.rounds):
            ours.append(timed([SPARKFLEET, "audit"], env))
            theirs.append(timed(testinfra, env))
            for host in hosts:
                began = time.monotonic()
                host.run("true", fresh=True)
                connections.append(time.monotonic() - began)
            targets = [target_of(host, loaded.known_hosts) for host in loaded.hosts]
            probes += [run.seconds for target in targets for run in collect([target])]
    beyond = statistics.median(probes) - statistics.median(connections)
    table.add_row("a connection and `true`, one host", f"{statistics.median(connections):.2f} s")
    table.add_row("the probe of one host beyond that", f"{beyond:.2f} s")
    table.add_row("audit of 2 lab hosts, whole", f"{statistics.median(ours):.1f} s")
    table.add_row("the same checks as plain testinfra tests", f"{statistics.median(theirs):.1f} s")
    ratios = [there / here for here, there in zip(ours, theirs, strict=True)]
    table.add_row("testinfra / audit, median of pairs", f"{statistics.median(ratios):.1f}")
    count, cpu = judged()
    table.add_row(f"{MANY} hosts judged ({count} verdicts), CPU", f"{cpu:.2f} s")
    Console().print(table)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench: {error}")
