"""One lab host: bring up, stop, save, restore, and run commands on it."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import accel, cache, console, qemu, secrets, waiting
from tests.lab import image as images
from tests.lab.errors import LabError
from tests.lab.locks import locked
from tests.lab.profiles import ADMIN, TRAINEES, Profile, native_arch, profile
from tests.lab.ssh import Client, Completed
from tests.lab.state import State

if TYPE_CHECKING:
    from tests.lab.lab import Lab

CLEAN = "clean"


class Host:
    """A host of a lab; get it from `Lab.host`. It outlives the Python process that started it.

    Every method raises LabError with one line that says what went wrong.
    """

    def __init__(self, lab: Lab, name: str, port: int) -> None:
        self.lab = lab
        self.name = name
        self.port = port
        self.directory = lab.directory / "hosts" / name
        self.client = Client(name, lab.ssh_config, lab.sockets / f"{name}.ssh", ADMIN, TRAINEES)

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def _state_file(self) -> Path:
        return self.directory / "state.json"

    @property
    def log(self) -> Path:
        """What the host wrote to its serial console."""
        return self.directory / "serial.log"

    @property
    def console_socket(self) -> Path:
        """The socket of its serial console, where root is logged in."""
        return self._machine(None).console

    @property
    def profile(self) -> Profile:
        """The profile, with the suite and architecture chosen when the host was made."""
        state = State.load(self._state_file)
        return profile(self.name, suite=state.suite, arch=state.arch)

    def choose(self, suite: str | None, arch: str | None) -> None:
        """Set suite and architecture (None: leave). Raises LabError where the host exists with others."""
        profile(self.name, suite=suite, arch=arch)
        state = State.load(self._state_file)
        for what, new, old in (("suite", suite, self.profile.suite), ("architecture", arch, self.profile.arch)):
            if new is not None and new != old and self.exists():
                raise LabError(f"{self.name} exists with {what} {old}: delete it first to make it {new}")
        state.suite, state.arch = suite or state.suite, arch or state.arch
        self.directory.mkdir(parents=True, exist_ok=True)
        state.save(self._state_file)

    def exists(self) -> bool:
        """Whether it has a disk, running or not."""
        return (self.directory / "disk.qcow2").exists()

    def running(self) -> bool:
        """Whether its qemu runs."""
        return qemu.pid(self._machine(None)) is not None

    def _machine(self, image: images.Image | None) -> qemu.Machine:
        spec = self.profile
        chosen = image or images.Image(cache.directory() / "images" / (State.load(self._state_file).image or "none"))
        return qemu.Machine(
            title=f"sparkfleet-{self.lab.ident}-{self.name}",
            profile=spec,
            image=chosen,
            accel=accel.choose(spec.arch, chosen) if image else "tcg",
            directory=self.directory,
            sockets=self.lab.sockets / self.name,
            port=self.port,
        )

    def _made_machine(self) -> qemu.Machine:
        """The machine of an existing disk: on the image it was made from. Raises LabError where that is gone."""
        key = State.load(self._state_file).image
        image = images.Image(cache.directory() / "images" / str(key))
        if not self.exists() or not image.disk.exists():
            raise LabError(f"{self.name} has no disk on an image of this machine: delete it and bring it up again")
        return self._machine(image)

    def _lock_path(self) -> Path:
        return self.lab.directory / "hosts" / f"{self.name}.lock"

    # -- life ---------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring it up and wait for SSH; builds the image and makes the host where needed. Nothing where it is up."""
        with locked(self._lock_path()):
            if self.running():
                self._wait_ssh(self._boot_seconds())
            elif self.exists():
                qemu.start(self._made_machine())
                self._wait_ssh(self._boot_seconds())
            else:
                self._make()

    def clean(self) -> None:
        """Back to the clean, booted host in seconds, whatever became of it: off, broken, or without sshd.

        The first time, and where the image or the settings of the lab have changed, it is made anew.
        """
        with locked(self._lock_path()):
            image = images.ensure(self.profile)
            state = State.load(self._state_file)
            machine = self._machine(image)
            fits = state.image == image.directory.name and state.tags.get(CLEAN) == qemu.fingerprint(machine)
            if self.exists() and fits:
                self._load(machine, CLEAN)
            else:
                self._make()

    def stop(self) -> None:
        """Switch it off at once (as pulling its plug); its disk stays."""
        with locked(self._lock_path()):
            self.client.disconnect()
            qemu.stop(self._machine(None))

    def delete(self) -> None:
        """Switch it off and forget it: disk, saved states, keys."""
        self.stop()
        with locked(self._lock_path()):
            shutil.rmtree(self.directory, ignore_errors=True)
            shutil.rmtree(self.lab.sockets / self.name, ignore_errors=True)
        self.lab.refresh()

    def reboot(self) -> None:
        """Reboot it through systemd, and wait until SSH answers from the new boot."""
        self._rebooting(lambda: self.console_run("systemctl --no-block reboot"))

    def hard_reset(self) -> None:
        """Press its reset button, and wait until SSH answers from the new boot."""
        self._rebooting(lambda: qemu.Monitor(self._made_machine()).command("system_reset"))

    def _rebooting(self, act: Callable[[], object]) -> None:
        before = self.console_run("cat /proc/sys/kernel/random/boot_id").stdout.strip()
        self.client.disconnect()
        act()
        self._wait_ssh(self._boot_seconds() + 60, before)

    def wait_boot(self, before: str) -> None:
        """Wait until SSH answers from another boot than `before`, however that came about."""
        self.client.disconnect()
        self._wait_ssh(self._boot_seconds() + 60, before)

    def _make(self) -> None:
        """A fresh host from the image, booted, settled and saved as `clean`."""
        spec = self.profile
        image = images.ensure(spec)
        self.client.disconnect()
        qemu.stop(self._machine(None))
        self.directory.mkdir(parents=True, exist_ok=True)
        machine = self._machine(image)
        state = State.load(self._state_file)
        state.image, state.tags = image.directory.name, {}
        state.save(self._state_file)
        machine.log.write_bytes(b"")
        self.lab.refresh(self.name)
        machine.seed.unlink(missing_ok=True)
        machine.seed.touch(mode=0o600)
        machine.seed.write_bytes(secrets.seed(self.lab, self.name))
        qemu.create_disk(machine)
        began = time.monotonic()
        qemu.start(machine)
        self._wait_ssh(self._boot_seconds())
        booted = time.monotonic()
        self.settle()
        settled = time.monotonic()
        self._save(machine, CLEAN)
        self.lab.say(
            f"{self.name}: SSH after {booted - began:.0f} s, settled after {settled - began:.0f} s,"
            f" saved in {time.monotonic() - settled:.1f} s ({machine.accel})"
        )

    def settle(self) -> None:
        """Wait until systemd has nothing left to start."""
        self.console_run("systemctl is-system-running --wait", check=False, timeout=self._boot_seconds())

    # -- saved states -------------------------------------------------------------------------------------------

    def snapshot(self, tag: str) -> None:
        """Save the running host, memory and disk, as `tag`."""
        if not tag or not tag.replace("-", "").replace("_", "").isalnum() or tag.isdecimal():
            raise LabError(f"bad name for a saved state {tag!r}: letters, digits, - and _, not only digits")
        with locked(self._lock_path()):
            machine = self._made_machine()
            if qemu.pid(machine) is None:
                raise LabError(f"{self.name} is not up")
            self._save(machine, tag)

    def restore(self, tag: str) -> None:
        """Bring the host back to the state saved as `tag`, running, its clock set."""
        with locked(self._lock_path()):
            machine = self._made_machine()
            saved = State.load(self._state_file).tags
            if tag not in saved:
                raise LabError(f"{self.name} has no saved state {tag!r} (has: {', '.join(sorted(saved)) or 'none'})")
            if saved[tag] != qemu.fingerprint(machine):
                raise LabError(f"{self.name}: {tag!r} was saved with another qemu, port or memory; it cannot be loaded")
            self._load(machine, tag)

    def _save(self, machine: qemu.Machine, tag: str) -> None:
        self.client.disconnect()
        state = State.load(self._state_file)
        if state.tags.pop(tag, None):
            state.save(self._state_file)
            qemu.Monitor(machine).human(f"delvm {tag}")
        qemu.Monitor(machine).human(f"savevm {tag}")
        state.tags[tag] = qemu.fingerprint(machine)
        state.save(self._state_file)

    def _load(self, machine: qemu.Machine, tag: str) -> None:
        self.client.disconnect()
        qemu.stop(machine)
        qemu.start(machine, load=tag)
        self.console_run(f"date -s @{time.time():.3f}")
        self._wait_ssh(60)

    def _boot_seconds(self) -> float:
        return 300.0 if self.profile.arch == native_arch() else 900.0

    def _wait_ssh(self, seconds: float, not_boot: str | None = None) -> None:
        waiting.for_ssh(self, seconds, not_boot)

    # -- commands -----------------------------------------------------------------------------------------------

    def run(
        self,
        cmd: str,
        user: str = ADMIN,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        fresh: bool = False,
        tty: bool = False,
    ) -> Completed:
        """Run `cmd` over SSH in the login shell of `user`; `timeout` in seconds.

        Commands share one connection a user; `fresh` opens a new session of its own, `tty` asks for a terminal.
        Raises CommandError where rc is not 0 (unless `check` is false) or the time is up.
        """
        return self.client.run(cmd, user=user, check=check, timeout=timeout, input=input, fresh=fresh, tty=tty)

    def sudo(
        self, cmd: str, check: bool = True, input: str | None = None, timeout: float = 60.0, fresh: bool = False
    ) -> Completed:
        """Run `cmd` in bash as root, through the admin's sudo; its password, where asked for, goes in on stdin."""
        quoted = shlex.quote(cmd)
        if self.profile.sudo_password:
            line, data = f"sudo -k -S -p '' -- bash -c {quoted}", f"{self.lab.admin_password}\n{input or ''}"
        else:
            line, data = f"sudo -n -- bash -c {quoted}", input or ""
        return self.run(line, check=check, timeout=timeout, input=data, fresh=fresh)

    def console_run(self, cmd: str, check: bool = True, input: str | None = None, timeout: float = 60.0) -> Completed:
        """Run `cmd` in bash as root at the machine's own console: no network, no sshd, no sudo in between."""
        path = self._machine(None).agent
        return console.run(self.name, path, cmd, check=check, timeout=timeout, input=input)

    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def monitor(self) -> qemu.Monitor:
        """qemu's own monitor: to pause it, or to plug something in that the next start does not have."""
        return qemu.Monitor(self._made_machine())

    def plug(self, name: str, mac: str, wire: Path, other_end: Path) -> None:
        """Put in one more network device, on a wire of its own: datagrams from the socket `wire` to `other_end`.

        It is there until the host is switched off. Sockets' paths have 107 bytes.
        """
        monitor = self.monitor()
        wire.unlink(missing_ok=True)
        ends = {key: {"type": "unix", "path": str(path)} for key, path in (("local", wire), ("remote", other_end))}
        monitor.command("netdev_add", type="dgram", id=f"wire-{name}", **ends)
        monitor.command("device_add", driver="virtio-net-pci", netdev=f"wire-{name}", id=name, mac=mac)

    def pull(self, name: str, out: bool) -> None:
        """Pull (True) or put back (False) the cable of a device that `plug` put in."""
        self.monitor().command("set_link", name=name, up=not out)

    def cut_network(self, cut: bool) -> None:
        """Pull (True) or plug in (False) the host's network cable."""
        qemu.Monitor(self._machine(None)).command("set_link", name="nic", up=not cut)
