"""What root sees of the machine: hardware, kernel, GPU, clock, disk, and whether its next boot will work."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

KILLERS = ("systemd-oomd", "earlyoom", "nohang", "nohang-desktop", "oomd")
LIKE_KILLERS = ("*oom*", "*memwatch*", "*mem-guard*", "*memguard*", "*thrash-protect*", "*nohang*")
"""What sites call their own: dgx-anti-oom, memwatch (reported)."""
A_KILLER = re.compile(r"(?:.*[^a-z])?(?:oom|earlyoom|memwatch|mem-?guard|thrash-protect|nohang)[^/]*")
OF_THE_KERNEL = "oom_reaper"
NVIDIA = "0x10de"
MOST_ERROR = 16_000_000
"""Microseconds: what the kernel says of a clock that nothing has set (NTP_PHASE_LIMIT)."""


def machine(parameters: Parameters) -> Mapping[str, Seen]:
    """Kernel, architecture, processors, memory, release, cgroup version."""
    release = read("/etc/os-release")
    wanted = [line for line in release.output.splitlines() if line.startswith(("ID=", "VERSION_ID="))]
    first = read("/proc/meminfo", "head -1 /proc/meminfo")
    mounts = [line.split() for line in read("/proc/self/mounts").output.splitlines()]
    # The last one is what lies on top.
    kind = next((words[2] for words in reversed(mounts) if words[1:2] == ["/sys/fs/cgroup"]), "none")
    return {
        "kernel": Seen("uname -r", f"{os.uname().release}\n"),
        "architecture": Seen("uname -m", f"{os.uname().machine}\n"),
        "processors": Seen("nproc --all", f"{os.cpu_count()}\n"),
        "memory": first._replace(output=first.output.partition("\n")[0] + "\n"),
        "release": release._replace(command="grep ID= /etc/os-release", output="".join(f"{x}\n" for x in wanted)),
        "cgroups": Seen("findmnt -no FSTYPE /sys/fs/cgroup", f"{kind}\n"),
    }


def nvidia_gpus() -> list[str]:
    """NVIDIA's GPUs on the PCI bus: address and ids."""
    found = []
    for device in sorted(Path("/sys/bus/pci/devices").glob("*")):
        vendor, kind = read(str(device / "vendor")).output.strip(), read(str(device / "class")).output.strip()
        if vendor == NVIDIA and kind.startswith("0x03"):
            found.append(f"{device.name} {vendor}:{read(str(device / 'device')).output.strip()}")
    return found


def gpu(parameters: Parameters) -> Mapping[str, Seen]:
    """NVIDIA's GPUs on the bus, and what the driver says of them."""
    found = nvidia_gpus()
    bus = Seen("lspci -d 10de::03xx", "\n".join([f"{len(found)} NVIDIA GPUs", *found]) + "\n")
    query = "name,driver_version,compute_cap"
    command = ("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    versions = ("nvidia-smi", "--version")
    # It can block for minutes while the driver is in trouble (reported).
    return {
        "gpus": bus,
        "nvidia_smi": run(command, seconds=10) if found else Seen(" ".join(command), "no GPU\n"),
        "nvidia_cuda": run(versions, seconds=10) if found else Seen(" ".join(versions), "no GPU\n"),
    }


def killers(parameters: Parameters) -> Mapping[str, Seen]:
    """Other programs that kill for memory, by their names: as services, and as processes whoever started them."""
    names = [f"{name}.service" for name in (*KILLERS, *LIKE_KILLERS)]
    shown = run(("systemctl", "show", "-p", "Id,ActiveState,UnitFileState", "--", *names))
    if shown.rc:
        return {"killers": shown}
    lines = []
    for block in shown.output.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if A_KILLER.fullmatch(values.get("Id", "")):
            lines.append(f"{values['Id']} {values.get('ActiveState')} {values.get('UnitFileState') or '-'}")
    for path in Path("/proc").glob("[0-9]*/comm"):
        seen = read(str(path)).output.strip()
        if A_KILLER.fullmatch(seen) and seen != OF_THE_KERNEL:
            lines.append(f"process {path.parent.name} {'_'.join(seen.split())}")
    command = f"systemctl show -p Id,ActiveState,UnitFileState {' '.join(names)}; pgrep -l '{A_KILLER.pattern}'"
    return {"killers": Seen(command, "\n".join(dict.fromkeys(lines)) + "\n")}


def clock(parameters: Parameters) -> Mapping[str, Seen]:
    """Whether the kernel holds its clock for synchronised, as timedatectl asks it; which starts a service for that."""
    timex = (ctypes.c_long * 64)()  # struct timex of 64 bits: modes, offset, freq, maxerror, esterror, status ...
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    command = "timedatectl show -p NTPSynchronized"
    if state < 0:
        return {"clock": Seen(command, "", 1, f"adjtimex: {os.strerror(ctypes.get_errno())}")}
    return {"clock": Seen(command, f"NTPSynchronized={_yes(timex[3] < MOST_ERROR)}\n")}


def disk(parameters: Parameters) -> Mapping[str, Seen]:
    """Free and all bytes, free and all inodes of the root file system, as users have them."""
    seen = os.statvfs("/")
    values = (seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize, seen.f_favail, seen.f_files)
    return {"root_disk": Seen("stat -f /", " ".join(map(str, values)) + "\n")}


def next_boot(parameters: Parameters) -> Mapping[str, Seen]:
    """Whether a reboot is asked for, and each installed kernel with its initrd, modules and NVIDIA module."""
    flag, wanting = Path("/run/reboot-required"), read("/run/reboot-required.pkgs")
    packages = " ".join(sorted(set(wanting.output.split()))) or "somebody"
    lines = [f"running {os.uname().release}"]
    for image in sorted(Path("/boot").glob("vmlinu[xz]-*")):
        version = image.name.partition("-")[2]
        initrds = [path for path in Path("/boot").glob(f"initrd*{version}*") if version in path.name]
        initrd = max((path.stat().st_size for path in initrds), default=0)
        modules = (Path("/lib/modules") / version / "modules.dep").exists()
        nvidia = bool(nvidia_gpus()) and run(("modinfo", "-k", version, "-F", "version", "nvidia")).rc == 0
        lines.append(f"kernel {version} initrd={initrd} modules={_yes(modules)} nvidia={_yes(nvidia)}")
    command = "ls -l /boot/vmlinuz-* /boot/initrd.img-* /lib/modules/*/modules.dep; modinfo -k VERSION nvidia"
    return {
        "reboot_required": Seen("cat /run/reboot-required.pkgs", f"for {packages}\n" if flag.exists() else "no\n"),
        "kernels": Seen(command, "\n".join(lines) + "\n"),
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def identity(parameters: Parameters) -> Mapping[str, Seen]:
    """machine-id, hashed (machine-id(5): it is confidential), and the fingerprints of the host keys."""
    ident = read("/etc/machine-id")
    text = ident.output.strip()
    digest = hashlib.sha256(text.encode()).hexdigest() if re.fullmatch("[0-9a-f]{32}", text) else ""
    lines = []
    for path in sorted(Path("/etc/ssh").glob("ssh_host_*_key.pub")):
        words = read(str(path)).output.split()
        if len(words) > 1:
            key = base64.b64encode(hashlib.sha256(base64.b64decode(words[1])).digest()).decode().rstrip("=")
            lines.append(f"{words[0]} SHA256:{key}")
    return {
        "machine_id": Seen("sha256sum /etc/machine-id", f"{digest}\n" if digest else "", ident.rc, ident.error),
        "host_keys": Seen("ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub", "".join(f"{line}\n" for line in lines)),
    }


def applied(parameters: Parameters) -> Mapping[str, Seen]:
    """The measures as they stand, and the last deploy."""
    path = "/var/lib/sparkfleet/applied.json"
    seen = read(path) if Path(path).exists() else Seen(f"cat {path}", "none\n")
    try:
        found = json.loads(seen.output)
        found["last"] = found.pop("deploys")[-1]
    except Exception:  # no JSON of ours
        return {"applied": seen}
    return {"applied": seen._replace(output=json.dumps(found))}


def held(parameters: Parameters) -> Mapping[str, Seen]:
    """Packages of kernel and driver that are kept from updates."""
    patterns = ("linux-*", "nvidia-*", "libnvidia-*", "cuda-*", "dgx-*")
    seen = run(("dpkg-query", "-W", "-f", "${db:Status-Want} ${Package}\\n", *patterns), limit=1 << 19)
    found = [line[5:] for line in seen.output.splitlines() if line[:5] == "hold "]
    text = "\n".join([f"{len(found)} held packages", *found, ""])
    # rc 1: a pattern fits nothing.
    return {"held_packages": seen._replace(command="apt-mark showhold", output=text, rc=seen.rc & ~1)}


def desktop(parameters: Parameters) -> Mapping[str, Seen]:
    """The display manager, and what the host boots to; nothing where nobody wants to know."""
    if not parameters["headless"]:
        return {}
    words = ("systemctl", "show", "-p", "Id,LoadState,ActiveState", "--", "display-manager.service")
    return {"desktop_manager": run(words), "default_target": run(("systemctl", "get-default"))}


LOOKS: dict[str, Looks] = {
    "desktop_manager": desktop,
    "held_packages": held,
    "kernel": machine,
    "applied": applied,
    "gpus": gpu,
    "killers": killers,
    "clock": clock,
    "root_disk": disk,
    "kernels": next_boot,
    "machine_id": identity,
}
