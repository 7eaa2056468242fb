"""What root sees of sshd: its units, its listener's score, memory.min along the cgroups, sessions out of reach."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

CGROUPS = Path("/sys/fs/cgroup")
PROPERTIES = (
    "Id,LoadState,ActiveState,UnitFileState,MainPID,OOMScoreAdjust,MemoryMin,ControlGroup,Accept,NeedDaemonReload,"
    "DropInPaths"
)
KEYWORDS = ("port", "usepam", "permitrootlogin", "passwordauthentication", "maxsessions")
"""What is kept of `sshd -T`."""


def units(parameters: Parameters) -> Mapping[str, Seen]:
    """The units as PID 1 holds them; from there the listener's score and each cgroup's memory.min."""
    names = ("ssh.service", "ssh.socket", "system.slice", *parameters["units"])
    shown = run(("systemctl", "show", "-p", PROPERTIES, "--", *names), shown=f"systemctl show {' '.join(names)}")
    if shown.rc:
        scores = {f"score of {name}": shown for name in parameters["units"]}
        return {"ssh_units": shown, "sshd_listener": shown, "memory_min": shown, **scores}
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in shown.output.strip().split("\n\n")
    ]
    by_name = dict(zip(names, blocks, strict=False))
    return {
        "ssh_units": shown,
        "sshd_listener": listener(by_name.get("ssh.service", {})),
        "memory_min": memory_min({name: by_name.get(name, {}) for name in ("ssh.service", *parameters["units"])}),
        **{f"score of {name}": unit_score(name, by_name.get(name, {})) for name in parameters["units"]},
    }


def listener(service: Mapping[str, str]) -> Seen:
    """The score of the sshd that listens."""
    return unit_score("ssh.service", service)


def unit_score(name: str, service: Mapping[str, str]) -> Seen:
    """The oom_score_adj of a service's main process."""
    command = f"cat /proc/$(systemctl show -P MainPID {name})/oom_score_adj"
    pid = service.get("MainPID", "")
    if not pid.isdecimal():
        return Seen(command, "", 1, f"systemctl says nothing about {name}")
    return Seen(command, "no process\n") if pid == "0" else read(f"/proc/{pid}/oom_score_adj", command)


def memory_min(services: Mapping[str, Mapping[str, str]]) -> Seen:
    """`UNIT CGROUP BYTES` for each cgroup from the top down to the unit's own (cgroups v2; "none": no such file)."""
    lines = [f"{len(services)} units"]
    for name, values in services.items():
        cgroup = values.get("ControlGroup", "")
        if not cgroup:
            lines.append(f"{name} - not running")
        path = CGROUPS
        for part in cgroup.strip("/").split("/") if cgroup else ():
            path /= part
            seen = read(str(path / "memory.min"))
            lines.append(f"{name} {path.relative_to(CGROUPS)} {seen.output.strip() if not seen.rc else 'none'}")
    command = "cat /sys/fs/cgroup/system.slice/memory.min /sys/fs/cgroup/system.slice/ssh.service/memory.min"
    return Seen(command, "\n".join(lines) + "\n")


def configuration(parameters: Parameters) -> Mapping[str, Seen]:
    """What sshd makes of its files; it fails where they would stop the next start."""
    answer = run(("/usr/sbin/sshd", "-T"), shown="sshd -T")
    kept = [line for line in answer.output.splitlines() if line.partition(" ")[0] in KEYWORDS]
    return {"sshd_config": answer._replace(output="".join(f"{line}\n" for line in kept))}


def out_of_reach(parameters: Parameters) -> Mapping[str, Seen]:
    """Processes of users' sessions that the OOM killer must not take (oom_score_adj -1000), whoever runs them."""
    command = "grep -lx -- -1000 /proc/[0-9]*/oom_score_adj  # those below user.slice"
    looked, found = 0, []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            cgroup = (directory / "cgroup").read_text().strip().rpartition(":")[2]
            if not cgroup.startswith("/user.slice/"):
                continue
            looked += 1
            if (directory / "oom_score_adj").read_text().strip() == "-1000":
                name = (directory / "comm").read_text(errors="backslashreplace").strip()
                found.append(f"{directory.name} {owner(directory.stat().st_uid)} {Path(cgroup).name} {name}")
        except OSError:
            continue  # it has ended meanwhile
    return {"out_of_reach": Seen(command, "\n".join([f"{looked} processes of sessions", *found[:50]]) + "\n")}


def owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


LOOKS: dict[str, Looks] = {"ssh_units": units, "sshd_config": configuration, "out_of_reach": out_of_reach}
