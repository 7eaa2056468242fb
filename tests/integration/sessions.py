"""What a fresh SSH session of a user is to the OOM killer, and what PID 1 and the kernel hold of a unit."""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab import Host

MIB = 2**20
LOOK = """
cat /proc/self/oom_score_adj
sh -c 'sh -c "cat /proc/self/oom_score_adj"'
(echo -1 >/proc/self/oom_score_adj) 2>&1 | grep -c 'Permission denied'
tmux -L proof new-session -d 'cat /proc/self/oom_score_adj >"$HOME/score"; tmux -L proof wait-for -S said'
tmux -L proof wait-for said
cat "$HOME/score"
"""


@dataclass(frozen=True)
class Session:
    """oom_score_adj of a session's shell, of a grandchild, and of a shell in a new tmux server."""

    own: int
    child: int
    tmux: int
    can_be_lowered: bool


def fresh_session(host: Host, user: str) -> Session:
    """Logs in anew and looks."""
    own, child, refused, tmux = host.run(LOOK, user=user, fresh=True, timeout=180).stdout.split()
    return Session(int(own), int(child), int(tmux), refused != "1")


KILLABLE = Session(0, 0, 0, can_be_lowered=False)


def shown(host: Host, unit: str, name: str) -> str:
    """A property of a unit as PID 1 has it."""
    return host.run(f"systemctl show -p {name} --value {unit}").stdout.strip()


def listener_score(host: Host) -> int:
    """oom_score_adj of the process that ssh.service runs."""
    return int(host.run("cat /proc/$(systemctl show -p MainPID --value ssh.service)/oom_score_adj").stdout)


def memory_min(host: Host, cgroup: str) -> int:
    """What the kernel grants a cgroup, in MiB."""
    return int(host.run(f"cat /sys/fs/cgroup/{cgroup}/memory.min").stdout) // MIB


def memory_current(host: Host, cgroup: str) -> int:
    """What a cgroup uses, in MiB."""
    return int(host.run(f"cat /sys/fs/cgroup/{cgroup}/memory.current").stdout) // MIB
