"""`make demo`: the main job on two disposable hosts, to watch. Deploy, again, break, find, repair, a job, reboot.

It calls the very commands that an admin types, and leaves the hosts running for a look around.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.compliance.standins import PREPARE
from tests.integration.deploying import ESCAPE, Deployed, environment, reboot
from tests.lab import Host, Lab, LabError

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("spark1", "spark2")
MEASURES = ("swap", "ssh", "cuda_env", "uv", "stack", "tools", "training_slice", "watchdog")
BREAKS = {
    "spark1": (
        ("swap is back in /etc/fstab", "sed -i 's/^# swapped off by sparkfleet: //' /etc/fstab"),
        ("somebody turned it on", "fallocate -l 32M /by-hand.img && mkswap -q /by-hand.img && swapon /by-hand.img"),
        ("the hook that keeps sessions killable is gone", "rm /opt/sparkfleet/lib/killable-session"),
        ("an edited CUDA environment", "sed -i 's/12.1a/9.0/' /etc/profile.d/*sparkfleet*"),
    ),
    "spark2": (
        ("the swap guard is masked", "ln -sf /dev/null /etc/systemd/system/swap.d/zz-sparkfleet.conf"),
        ("uv was deleted", "rm /usr/local/bin/uv"),
        ("somebody stopped the launcher", "systemctl disable -q --now sparkfleet-launcher.socket"),
        ("the memory watchdog was stopped", "systemctl disable --quiet --now sparkfleet-watchdog"),
    ),
}

JOB = "spark-run --memory 100M -- python3 -c \"x = b'x' * (300 << 20)\""


@dataclass
class Demo:
    """The demo's progress: what was run, how long it took, what came out."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    failed: bool = False

    def title(self, text: str) -> None:
        self.console.print(f"\n[bold]── {text}[/bold]")

    def note(self, step: str, seconds: float, outcome: str, ok: bool = True) -> None:
        self.rows.append((step, f"{seconds:.0f} s", outcome if ok else f"[red]{outcome}[/red]"))
        self.failed = self.failed or not ok

    def pyinfra(self, lab: Lab, *arguments: str) -> Deployed:
        """Runs pyinfra as an admin would, and shows its output as it comes."""
        command = ["pyinfra", "inventory.py", "deploy.py", *arguments]
        self.console.print(f"[cyan]$ {' '.join(command)}[/cyan]")
        process = subprocess.Popen(
            [Path(sys.executable).with_name("pyinfra"), *command[1:]],
            cwd=ROOT,
            env=environment(lab, "inventories/lab.yaml"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(ESCAPE.sub("", line))
            self.console.out(f"  {line.rstrip()}", highlight=False)
        return Deployed(process.wait(), "".join(lines))

    def audit(self, lab: Lab, name: str, expected: int) -> None:
        """Runs the audit of the measures as an admin would; what lab hosts lack of a Spark is left out."""
        arguments = [word for measure in MEASURES for word in ("--measure", measure)]
        self.console.print(f"[cyan]$ sparkfleet audit {' '.join(arguments)}[/cyan]")
        start = time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name("sparkfleet"), "audit", *arguments],
            cwd=ROOT,
            env=environment(lab, "inventories/lab.yaml"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in done.stdout.splitlines():
            self.console.out(f"  {line}", highlight=False)
        failing = len(re.findall(r"^SPK-\S+ +fail", done.stdout, re.MULTILINE))
        outcome = f"controls that fail: {failing}; exit code {done.returncode}"
        self.note(name, time.monotonic() - start, outcome, done.returncode == expected)

    def summary(self, hosts: Sequence[Host]) -> None:
        table = Table("step", "time", "outcome", title="What happened")
        for row in self.rows:
            table.add_row(*row)
        self.console.print()
        self.console.print(table)
        self.console.print(f"The hosts are still up: .venv/bin/python -m tests.lab ssh {hosts[0].name}")
        self.console.print("Break something and run the deploy again; `make clean` deletes them.")


def count(result: Deployed) -> int:
    return sum(len(lines) for name in NAMES for lines in result.changes(name).values())


def changes_by_host(result: Deployed) -> str:
    return ", ".join(f"{name}: {sum(map(len, result.changes(name).values()))}" for name in NAMES)


def state_of(host: Host) -> str:
    """One line on the state of a host, asked of the host itself."""
    active = host.run("awk 'NR>1{print $1}' /proc/swaps").stdout.split()
    arch = host.run("bash -lc 'echo ${TORCH_CUDA_ARCH_LIST:-unset}'").stdout.strip()
    uv = host.run("uv --version || echo no uv", check=False).stdout.strip().split(" (")[0]
    score = host.run("cat /proc/self/oom_score_adj", user="alice", fresh=True).stdout.strip()
    granted = int(host.run("cat /sys/fs/cgroup/system.slice/ssh.service/memory.min", check=False).stdout or 0) >> 20
    return (
        f"swap on {', '.join(active) or 'nothing'}; TORCH_CUDA_ARCH_LIST {arch}; {uv}; "
        f"sshd keeps {granted} MiB, a new session's oom_score_adj is {score}"
    )


def play(demo: Demo, lab: Lab) -> None:
    """The whole story."""
    hosts = [lab.host(name) for name in NAMES]

    demo.title("Two freshly installed hosts (built once, later restored in seconds)")
    start = time.monotonic()
    for host in hosts:
        host.clean()
        # A tree stands in for the CUDA toolkit: without one there is no CUDA environment to set.
        host.sudo(PREPARE)
        demo.console.print(f"  {host.name}: {state_of(host)}")
    demo.note("two hosts up", time.monotonic() - start, "lived-in machines with swap on")

    demo.title("First deploy")
    step(demo, lab, "first deploy", lambda result: (result.rc == 0, f"changes on {changes_by_host(result)}"))

    demo.title("The same again: nothing to do")
    step(demo, lab, "second deploy", lambda result: (result.rc == 0 and count(result) == 0, f"{count(result)} changes"))

    demo.title("Drift: what people and packages do")
    for host in hosts:
        for what, command in BREAKS[host.name]:
            demo.console.print(f"  {host.name}: {what}")
            host.sudo(command)

    demo.title("Found, without changing anything")
    start = time.monotonic()
    planned = demo.pyinfra(lab, "--dry", "--diff")
    demo.note("dry run", time.monotonic() - start, f"would change {changes_by_host(planned)}", count(planned) > 0)

    demo.title("Found by the audit, which shares no code with the deploy")
    demo.audit(lab, "audit of the drift", 1)

    demo.title("Repaired")

    def as_planned(result: Deployed) -> tuple[bool, str]:
        same = count(result) == count(planned)
        return result.rc == 0 and same, f"changes on {changes_by_host(result)}, {'' if same else 'NOT '}as planned"

    step(demo, lab, "repair", as_planned)

    demo.audit(lab, "audit after it", 0)

    demo.title("A training user's job that needs more than it asked for")
    start = time.monotonic()
    demo.console.print(f"[cyan]alice@spark1:~$ {JOB}[/cyan]")
    job = hosts[0].run(JOB, user="alice", fresh=True, check=False)
    for line in job.stderr.splitlines():
        demo.console.out(f"  {line}", highlight=False)
    told = "killed by its memory cap" in job.stderr
    outcome = f"killed by its cap, exit code {job.rc}, and told so" if told else "not held by its cap"
    demo.note("a job over its cap", time.monotonic() - start, outcome, told)

    demo.title("After a reboot")
    start = time.monotonic()
    states = {}
    reboot(*hosts)
    for host in hosts:
        states[host.name] = state_of(host)
        demo.console.print(f"  {host.name}: {states[host.name]}")
    wanted = ("swap on nothing; TORCH_CUDA_ARCH_LIST 12.1a; uv ", "sshd keeps 512 MiB", "oom_score_adj is 0")
    holds = all(part in state for state in states.values() for part in wanted)
    demo.note("reboot", time.monotonic() - start, "still protected" if holds else "protection lost", holds)
    demo.summary(hosts)


def step(demo: Demo, lab: Lab, name: str, judge: Callable[[Deployed], tuple[bool, str]]) -> None:
    start = time.monotonic()
    result = demo.pyinfra(lab, "-y")
    ok, outcome = judge(result)
    demo.note(name, time.monotonic() - start, outcome, ok)


def main() -> int:
    demo = Demo()
    try:
        play(demo, Lab())
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return int(demo.failed)


if __name__ == "__main__":
    sys.exit(main())
