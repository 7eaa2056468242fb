"""One qemu process: its command line, its monitor, and whether it is still ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import files
from tests.lab.errors import LabError
from tests.lab.image import Image
from tests.lab.profiles import Profile

BINARY = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}


@dataclass(frozen=True)
class Machine:
    """Where one host's files are, and what it is. `sockets` must be short: a socket's path has 107 bytes."""

    title: str
    profile: Profile
    image: Image
    accel: str
    directory: Path
    sockets: Path
    port: int

    @property
    def pidfile(self) -> Path:
        return self.directory / "qemu.pid"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.qcow2"

    @property
    def seed(self) -> Path:
        return self.directory / "seed.tar"

    @property
    def log(self) -> Path:
        return self.directory / "serial.log"

    @property
    def qmp(self) -> Path:
        return self.sockets / "qmp"

    @property
    def console(self) -> Path:
        return self.sockets / "console"

    @property
    def agent(self) -> Path:
        return self.sockets / "agent"


def acceleration(arch: str, accel: str) -> list[str]:
    """The -accel, -cpu and -M words for `accel` (kvm or tcg)."""
    machine = ["-M", "virt"] if arch == "arm64" else ["-M", "pc"]
    if accel == "kvm":
        return [*machine, "-accel", "kvm", "-cpu", "host"]
    # What the emulation does slowly and nobody here needs: pointer authentication as Arm computes it; page tables of
    # five levels, one more to read at every miss of the TLB; `rep movsb` and `rep stosb` for whole pages, byte by byte.
    cpu = "max,pauth-impdef=on" if arch == "arm64" else "max,la57=off,erms=off"
    return [*machine, "-accel", "tcg,thread=multi", "-cpu", cpu]


def argv(machine: Machine) -> list[str]:
    """The command line of the host's qemu, without `-loadvm`."""
    profile = machine.profile
    serial = "ttyS0" if profile.arch == "amd64" else "ttyAMA0"
    append = f"root=/dev/vda1 rw console={serial} panic=10 quiet loglevel=4 systemd.show_status=auto"
    return [
        BINARY[profile.arch],
        "-name", machine.title,
        *acceleration(profile.arch, machine.accel),
        "-smp", str(profile.cpus), "-m", str(profile.memory_mib),
        "-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc",
        "-kernel", str(machine.image.kernel), "-initrd", str(machine.image.initrd), "-append", append,
        "-drive", f"if=none,id=disk,file={machine.disk},format=qcow2,discard=unmap",
        "-device", "virtio-blk-pci,drive=disk,serial=sparkfleet-disk,bootindex=1",
        "-drive", f"if=none,id=seed,file={machine.seed},format=raw,readonly=on",
        "-device", f"virtio-blk-pci,drive=seed,serial={files.SEED_SERIAL}",
        "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{machine.port}-:22",
        "-device", "virtio-net-pci,netdev=net,id=nic",
        "-device", "virtio-rng-pci",
        *(["-device", "i6300esb", "-action", "watchdog=reset"] if profile.hardware_timer else []),
        "-chardev", f"socket,id=console,path={machine.console},server=on,wait=off,logfile={machine.log}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=agent,path={machine.agent},server=on,wait=off",
        "-device", "virtio-serial-pci",
        "-device", f"virtserialport,chardev=agent,name={files.AGENT_PORT}",
        "-qmp", f"unix:{machine.qmp},server=on,wait=off",
        "-pidfile", str(machine.pidfile),
        "-daemonize",
    ]  # fmt: skip


def fingerprint(machine: Machine) -> str:
    """What a saved state depends on: a state saved under another fingerprint cannot be loaded (hex)."""
    text = "\0".join([*argv(machine), version(machine.profile.arch)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def version(arch: str) -> str:
    """qemu's first version line. Raises LabError where it is not installed."""
    try:
        done = subprocess.run([BINARY[arch], "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabError(f"{BINARY[arch]} cannot run: {error}", 4) from error
    return done.stdout.splitlines()[0]


def pid(machine: Machine) -> int | None:
    """The process id of this host's qemu, or None. Another process with a reused id is not taken for it."""
    try:
        number = int(machine.pidfile.read_text())
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if machine.title.encode() in words else None


def port_free(port: int) -> bool:
    """Whether a server can listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start(machine: Machine, load: str | None = None) -> None:
    """Start the host's qemu, from power-on or from the saved state `load`.

    Raises LabError where the port is taken by something else, or qemu says why it cannot.
    """
    if not port_free(machine.port):
        raise LabError(f"port {machine.port} on 127.0.0.1 is in use by another program (SPARKFLEET_LAB_PORT sets it)")
    machine.sockets.mkdir(parents=True, exist_ok=True)
    machine.log.touch(mode=0o600)
    command = argv(machine) + (["-loadvm", load] if load else [])
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=machine.directory
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise LabError(f"qemu did not start {machine.directory.name}: {why}")


def stop(machine: Machine) -> None:
    """End the host's qemu at once, as if its plug were pulled, with its disk image left sound."""
    number = pid(machine)
    if number is None:
        return
    try:
        Monitor(machine).command("quit")
    except LabError:
        os.kill(number, signal.SIGTERM)
    if not _gone(machine, 10.0):
        os.kill(number, signal.SIGKILL)
        if not _gone(machine, 10.0):
            raise LabError(f"qemu of {machine.directory.name} (pid {number}) does not end")
    machine.pidfile.unlink(missing_ok=True)


def _gone(machine: Machine, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while pid(machine) is not None:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def create_disk(machine: Machine) -> None:
    """A fresh disk over the image's. Raises LabError where the file system is full."""
    machine.disk.unlink(missing_ok=True)
    done = subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(machine.image.disk), str(machine.disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        free = shutil.disk_usage(machine.directory).free // (1024 * 1024)
        raise LabError(f"cannot create {machine.disk} ({free} MiB free): {done.stderr.strip()}")


class Monitor:
    """A QMP connection for one command at a time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Run a QMP command and return its result. Raises LabError where qemu is gone or refuses."""
        host = self.machine.directory.name
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(120)
                sock.connect(str(self.machine.qmp))
                stream = sock.makefile("rw", encoding="utf-8")
                stream.readline()
                for word, values in (("qmp_capabilities", {}), (name, arguments)):
                    stream.write(json.dumps({"execute": word, "arguments": values}) + "\n")
                    stream.flush()
                    reply = self._reply(stream, name)
                return reply
        except OSError as error:
            raise LabError(f"{host}: qemu's monitor does not answer: {error}") from error

    @staticmethod
    def _reply(stream: Any, name: str) -> Any:
        for line in stream:
            message = json.loads(line)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise LabError(f"qemu refuses {name}: {message['error'].get('desc', message['error'])}")
        if name == "quit":
            return None
        raise LabError(f"qemu closed its monitor during {name}")

    def human(self, line: str) -> str:
        """Run a command of the human monitor. Raises LabError with what it says where it fails (it is silent else)."""
        said = str(self.command("human-monitor-command", **{"command-line": line})).strip()
        if said and not line.startswith("info"):
            raise LabError(f"qemu: {line}: {said}")
        return said
