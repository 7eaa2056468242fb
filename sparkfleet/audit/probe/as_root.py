"""What root sees: swap and the CUDA environment of sessions that only root can open."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe import (
    as_root_boots,
    as_root_container,
    as_root_gpu,
    as_root_host,
    as_root_packages,
    as_root_slice,
    as_root_ssh,
    as_root_stack,
    as_root_vllm_source,
    as_root_watchdog,
    link,
)
from sparkfleet.audit.probe.environment import ENV, session, shown
from sparkfleet.audit.probe.look import PATH, PLAIN, Looks, Parameters, Seen, read, run

UNITS = ("/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator", "/usr/lib/systemd/system")


def swaps(parameters: Parameters) -> Mapping[str, Seen]:
    """What the kernel swaps to; and fstab's entries of type swap, which `swapon -a` and systemd turn on."""
    command = "awk '!/^[ \\t]*#/ && $3 == \"swap\"' /etc/fstab"
    table = read("/etc/fstab")
    lines = [line for line in table.output.splitlines() if line.split()[2:3] == ["swap"] and line.lstrip()[0] != "#"]
    if table.rc and Path("/etc/fstab").exists():
        return {"swaps": read("/proc/swaps"), "fstab_swap": table._replace(command=command)}
    return {
        "swaps": read("/proc/swaps"),
        "fstab_swap": Seen(command, "".join(f"{line}\n" for line in [f"{len(lines)} swap entries", *lines])),
    }


def swap_units(parameters: Parameters) -> Mapping[str, Seen]:
    """Every swap unit that PID 1 knows or has a file of, with its conditions, and whether their paths exist.

    Not by `systemctl list-unit-files`, for which PID 1 reads every file it has (seconds); nor by `systemctl show
    -p Conditions`, which prints "[unprintable]" (systemd 252 to 257).
    """
    command = "systemctl show --all -p Id,LoadState,ActiveState '*.swap'; busctl get-property ... Conditions"
    names = sorted({path.name for directory in UNITS for path in Path(directory).glob("*.swap")})
    shown = run(("systemctl", "show", "--all", "-p", "Id,LoadState,ActiveState,FragmentPath", "--", "*.swap", *names))
    if shown.rc:
        return {"swap_units": shown._replace(command=command)}
    units = {}
    for block in shown.output.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        # Without a file: a name that others mention, or what PID 1 makes of a line in /proc/swaps; no boot starts it.
        if values.get("FragmentPath") or values.get("LoadState") == "masked":
            units[values.get("Id", "?")] = values
    lines = [f"{len(units)} swap units"]
    for name, values in sorted(units.items()):
        state = values.get("LoadState", "?")
        held = conditions(name) if state == "loaded" else ""
        lines.append(f"{name} {state} {values.get('ActiveState', '?')} {held}".rstrip())
    return {"swap_units": Seen(command, "\n".join(lines) + "\n")}


def conditions(unit: str) -> str:
    """`TYPE=PARAMETER:present` or `:absent` for each plain path condition (not negated, no trigger) of a unit."""
    escaped = re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):02x}", unit)
    where = ("org.freedesktop.systemd1", f"/org/freedesktop/systemd1/unit/{escaped}", "org.freedesktop.systemd1.Unit")
    answer = run(("busctl", "get-property", *where, "Conditions"))
    if answer.rc:
        return f"unknown: {' '.join(answer.error.split())}"
    found = re.findall(r'"(Condition\w+)" (true|false) (true|false) "([^"\\]*)"', answer.output)
    return " ".join(
        f"{kind}={path}:{'present' if os.path.exists(path) else 'absent'}"  # noqa: PTH110 - a name may be anything
        for kind, trigger, negated, path in found
        if kind == "ConditionPathExists" and trigger == negated == "false"
    )


def toolkit(parameters: Parameters) -> Mapping[str, Seen]:
    """Whether the CUDA toolkit is where the fleet file says, and which it is."""
    home, ptxas = parameters["home"], parameters["ptxas"]
    lines = [f"{'directory' if Path(path).is_dir() else 'absent'} {path}" for path in (home, f"{home}/lib64")]
    program = "program" if os.access(ptxas, os.X_OK) and Path(ptxas).is_file() else "absent"
    seen = {"toolkit": Seen(f"ls -ld {home} {home}/lib64 {ptxas}", "\n".join([*lines, f"{program} {ptxas}"]) + "\n")}
    nvcc = f"{home}/bin/nvcc"
    if os.access(nvcc, os.X_OK):
        return {**seen, "nvcc": run((nvcc, "--version"))}
    return {**seen, "nvcc": Seen(f"{nvcc} --version", "no nvcc\n")}


def libraries(parameters: Parameters) -> Mapping[str, Seen]:
    """Whether the dynamic linker's cache has the toolkit's libraries, under whichever name of their directory."""
    directory = Path(parameters["home"]) / "lib64"
    command = f"ldconfig -p | grep {directory}"
    if not directory.is_dir() or not any(directory.glob("lib*.so*")):
        return {"libraries": Seen(command, "no libraries there\n")}
    answer = run(("/sbin/ldconfig", "-p"), limit=4 * 1024 * 1024)
    if answer.rc:
        return {"libraries": answer._replace(command=command, output="")}
    listed = {Path(path).parent for path in re.findall(r" => (/.*)$", answer.output, re.MULTILINE)}
    known = any(path.exists() and directory.samefile(path) for path in listed)
    return {"libraries": Seen(command, "listed\n" if known else "not listed\n")}


def environment_file(parameters: Parameters) -> Mapping[str, Seen]:
    """What pam_env gives to logins, cron jobs and user managers of the next boot (pam_env(8): the last one wins)."""
    path = "/etc/environment"
    names = "|".join(parameters["names"])
    command = f"grep -E '^({names})=' {path}"
    content = read(path)
    if content.rc and Path(path).exists():
        return {"environment_file": content._replace(command=command)}
    found: dict[str, str] = {}
    for line in content.output.split("\n"):
        if match := re.match(r"[ \t]*(?:export )?([A-Za-z0-9_]+)=([^#]*)", line):
            value = match[2].strip()
            if value[:1] in ("'", '"'):
                value = value[1:].removesuffix(value[0])
            found[match[1]] = value
    return {"environment_file": Seen(command, shown(found, parameters["names"]))}


def sudo_login(parameters: Parameters) -> Mapping[str, Seen]:
    """As `sudo -i` gives it."""
    env = {"PATH": PATH, "TERM": "dumb"}
    if shutil.which("sudo", path=PATH) is None:
        return {"env_sudo_login": Seen("sudo -i env", "no sudo\n")}
    return {"env_sudo_login": session(("sudo", "-n", "-i", *ENV), parameters, env, "sudo -i env")}


def su(parameters: Parameters) -> Mapping[str, Seen]:
    """As `su - USER` gives it, for the user who logged in; console and cron read the same through PAM."""
    uid = int(os.environ.get("SUDO_UID", os.getuid()))
    user = pwd.getpwuid(uid).pw_name
    env = {"PATH": PATH, "TERM": "dumb"}
    return {"env_su": session(("su", "-", user, "-c", " ".join(ENV)), parameters, env, f"su - {user} -c env")}


def system_service(parameters: Parameters) -> Mapping[str, Seen]:
    """As a system service gets it that opts in; a transient unit, gone when it ends.

    DefaultDependencies=no: others start sysinit.target again, and with it every swap that somebody has turned off.
    """
    option = "EnvironmentFile=-/etc/sparkfleet/cuda.env"
    limits = ("-p", "RuntimeMaxSec=15", "-p", "DefaultDependencies=no")
    words = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "-p", option, *limits, *ENV)
    command = f"systemd-run --wait --pipe -p {option} env"
    return {"env_system_service": session(words, parameters, PLAIN, command)}


LOOKS: dict[str, Looks] = {
    "swaps": swaps,
    "swap_units": swap_units,
    "env_system_service": system_service,
    "env_sudo_login": sudo_login,
    "env_su": su,
    "toolkit": toolkit,
    "libraries": libraries,
    "environment_file": environment_file,
    **as_root_ssh.LOOKS,
    **as_root_watchdog.LOOKS,
    **as_root_host.LOOKS,
    **as_root_gpu.LOOKS,
    **as_root_packages.LOOKS,
    **as_root_boots.LOOKS,
    **as_root_slice.LOOKS,
    **as_root_stack.LOOKS,
    **as_root_container.LOOKS,
    **as_root_vllm_source.LOOKS,
    **link.LOOKS,
}
