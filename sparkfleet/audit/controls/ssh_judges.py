"""How the controls of sshd are judged."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.kit import (
    MIB,
    blocks,
    counted,
    judged,
    listed,
    malformed,
    not_applicable,
    number,
    unit,
)
from sparkfleet.audit.model import Evidence, Judgement, NoEvidence
from sparkfleet.settings import HostSettings

LOWEST = -1000
"""oom_score_adj of what the kernel never kills for memory (proc_pid_oom_score_adj(5))."""
LEAST_MEMORY = 32 * MIB
"""The floor for sshd, whatever the fleet file says: its pages and those of one login, with room."""
FROM_HERE = "the audit ran on the host itself, without a new SSH session: audit it from another machine to see one"


def listener(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"oom_score_adj {LOWEST}"
    text = evidence.text("sshd_listener").strip()
    if text == "no process":
        if unit(evidence, "ssh.socket").get("Accept") == "yes":
            return not_applicable(wanted, "systemd itself listens: ssh.socket starts an sshd for each connection")
        if unit(evidence, "ssh.socket").get("ActiveState") == "active":
            return not_applicable(wanted, "systemd itself listens: ssh.socket starts sshd with the first connection")
        return judged(False, wanted, "no sshd is running")
    score = number(evidence, "sshd_listener")
    return judged(score == LOWEST, wanted, f"oom_score_adj {score}")


def from_ssh(evidence: Evidence) -> bool:
    """Whether the session that was looked at is one of sshd's. Raises NoEvidence where the probe does not say."""
    way, *_ = evidence.text("session").split()
    if way not in ("ssh", "local"):
        raise malformed(evidence, "session")
    return way == "ssh"


def session_score(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "oom_score_adj 0 or more in a new session"
    score = number(evidence, "session_score")
    if not from_ssh(evidence):
        return not_applicable(wanted, FROM_HERE)
    return judged(score >= 0, wanted, f"oom_score_adj {score}")


def session_cannot_lower(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "the kernel refuses a session's user a lower oom_score_adj"
    said = evidence.text("session_lower").strip()
    user = evidence.text("session").split()
    if not from_ssh(evidence):
        return not_applicable(wanted, FROM_HERE)
    if len(user) != 3 or not (said.startswith("refused: ") or re.fullmatch(r"lowered to -\d+", said)):
        raise malformed(evidence, "session_lower")
    if user[2] == "0":
        return not_applicable(wanted, "the fleet file's user is root, who may: name an unprivileged user to see it")
    return judged(said.startswith("refused: "), wanted, said)


def nothing_out_of_reach(evidence: Evidence, settings: HostSettings) -> Judgement:
    found = counted(evidence, "out_of_reach", "processes of sessions")
    return judged(not found, f"no process of a session at {LOWEST}", listed(found) or "none")


def needed(settings: HostSettings) -> int:
    return max(int(settings.ssh.memory_min), LEAST_MEMORY)


def configured_score(evidence: Evidence, settings: HostSettings) -> Judgement:
    service = unit(evidence, "ssh.service")
    value = service.get("OOMScoreAdjust", "")
    return judged(value == str(LOWEST), f"OOMScoreAdjust={LOWEST} in ssh.service", f"OOMScoreAdjust={value or 'unset'}")


def configured_memory(evidence: Evidence, settings: HostSettings) -> Judgement:
    least = needed(settings)
    short, saw = False, []
    for name in ("ssh.service", "system.slice"):
        value = unit(evidence, name).get("MemoryMin", "")
        if not value.isdecimal() and value != "infinity":
            raise NoEvidence(f"systemctl show prints no MemoryMin for {name}")
        short = short or (value != "infinity" and int(value) < least)
        saw.append(f"{name} {value if value == 'infinity' else f'{int(value) // MIB} MiB'}")
    return judged(not short, f"MemoryMin of {least // MIB} MiB or more in both", ", ".join(saw))


def path_of(evidence: Evidence, name: str) -> list[tuple[str, str]]:
    """(cgroup, memory.min) from the top down to a unit's own; empty: it is not running.

    Raises:
        NoEvidence: the unit was not looked at.
    """
    lines = [line.split(" ") for line in counted(evidence, "memory_min", "units")]
    own = [(words[1], " ".join(words[2:])) for words in lines if words[0] == name and len(words) > 2]
    if not own:
        raise NoEvidence(f"nothing about memory.min of {name}")
    return [] if own[0][0] == "-" else own


def short_of(evidence: Evidence, name: str, least: int) -> list[str]:
    """The cgroups on the way to a unit that grant less than it needs. Raises NoEvidence on other text."""
    short = []
    for cgroup, value in path_of(evidence, name):
        if value not in ("max", "none") and not value.isdecimal():
            raise malformed(evidence, "memory_min")
        if value == "none":
            short.append(f"{cgroup} has no memory.min")
        elif value != "max" and int(value) < least:
            short.append(f"{cgroup} grants {int(value) // MIB} MiB")
    return short


def kept_memory(evidence: Evidence, settings: HostSettings) -> Judgement:
    least = needed(settings)
    wanted = f"memory.min of {least // MIB} MiB or more in every cgroup down to ssh.service"
    path = path_of(evidence, "ssh.service")
    if not path:
        return judged(False, wanted, "ssh.service is not running")
    short = short_of(evidence, "ssh.service", least)
    return judged(not short, wanted, listed(short) or ", ".join(f"{name} {value}" for name, value in path))


def others_protected(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"oom_score_adj {LOWEST} and memory.min for each service of ssh.protect"
    known = {found["Id"] for found in blocks(evidence, "ssh_units")}
    if not settings.ssh.protect:
        return not_applicable(wanted, "ssh.protect is empty in the fleet file")
    wrong = []
    for name, size in settings.ssh.protect.items():
        if name not in known:
            raise NoEvidence(f"the probe was not asked about {name}")
        if not path_of(evidence, name):
            wrong.append(f"{name} is not running")
            continue
        score = number(evidence, f"score of {name}")
        if score != LOWEST:
            wrong.append(f"{name} has oom_score_adj {score}")
        wrong += [f"{name}: {line}" for line in short_of(evidence, name, int(size))]
    return judged(not wrong, wanted, listed(wrong) or ", ".join(settings.ssh.protect))


def configuration_sound(evidence: Evidence, settings: HostSettings) -> Judgement:
    """`sshd -T` fails exactly where the next start would: its failure is what is looked for, not a lack of evidence."""
    wanted = "sshd accepts its configuration"
    seen = evidence.observations.get("sshd_config")
    if seen and seen.rc in (1, 255) and seen.error:
        return judged(False, wanted, seen.error.splitlines()[0])
    text = evidence.text("sshd_config")
    if not re.search(r"^port \d+$", text, re.MULTILINE):
        raise malformed(evidence, "sshd_config")
    return judged(True, wanted, "it does")


def uses_pam(evidence: Evidence, settings: HostSettings) -> Judgement:
    values = re.findall(r"^usepam (\S+)$", evidence.text("sshd_config"), re.MULTILINE)
    if len(values) != 1:
        raise malformed(evidence, "sshd_config")
    return judged(values == ["yes"], "UsePAM yes", f"UsePAM {values[0]}")


def comes_back(evidence: Evidence, settings: HostSettings) -> Judgement:
    one_of = {name: unit(evidence, name).get("UnitFileState", "") for name in ("ssh.service", "ssh.socket")}
    if not any(one_of.values()):
        raise NoEvidence("systemctl show prints no UnitFileState")
    saw = ", ".join(f"{name} {state or 'unknown'}" for name, state in one_of.items())
    return judged("enabled" in one_of.values(), "ssh.service or ssh.socket enabled", saw)


def settings_last(evidence: Evidence, settings: HostSettings) -> Judgement:
    """What PID 1 holds is what it will read at boot: nothing unread, nothing set until the next boot only."""
    wrong = []
    for name in ("ssh.service", "system.slice", *settings.ssh.protect):
        found = unit(evidence, name)
        reload = found.get("NeedDaemonReload", "")
        if reload not in ("yes", "no"):
            raise NoEvidence(f"systemctl show prints no NeedDaemonReload for {name}")
        if reload == "yes":
            wrong.append(f"{name} has changes that systemd has not read")
        wrong += [f"{name}: {path}" for path in found.get("DropInPaths", "").split() if path.startswith("/run/")]
    return judged(not wrong, "no unread change, no drop-in below /run", listed(wrong) or "none")
