"""The change of a host's links, made with the way back armed, and the proof that lets it stay.

How it works: `GuardedLink` is to links what `Guarded` is to SSH, with the same record, timer and unit for the next boot
(`sparkhost.ssh.guard`). It keeps what its files were, puts ours in their place, and has them read for these devices
alone. What must be run to bring the devices back stands in the record, so the host does that by itself too. The
controller then has `LinkProof` ask every peer on each rail, logs in anew, and confirms over that very connection.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import BACKUPS, File, NoFile, backup_of, keep_backup, sync_directory
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Change, Context, Failed, Refused, Resource, Step, Troubles, nothing
from sparkhost.cluster_link import answers, environment, hardware, live, network_files
from sparkhost.cluster_link.hardware import Nic
from sparkhost.ssh import unproved
from sparkhost.ssh.arming import arm
from sparkhost.ssh.guard import check_no_older, is_of_run, settle

TOKEN_END = ".link"
"""What the token of a change to links ends in; before it is that of the run."""


@dataclass(frozen=True)
class GuardedLink(Resource):
    """The links of a host as they are to be; without rails none of ours.

    `token`: names this run's change. `rails`: port, rail, address, mtu, peers, and `text` for systemd-networkd;
    `netplan`: the whole file for netplan; both with `@PORT.RAIL@` where the device's name goes. `environment`: what
    NCCL and others are to be told, see `environment.files`; empty: nothing.
    """

    kind: ClassVar[str] = "guarded_link"
    is_basis: ClassVar[bool] = True
    token: str
    rails: list[dict[str, Any]]
    netplan: str
    devices: list[str]
    take_over: bool
    confirm_within: float
    environment: dict[str, Any]

    def hold(self) -> contextlib.AbstractContextManager[object]:
        return unproved.locked()

    def steps(self, context: Context) -> Iterator[Step]:
        told = [path for path in (environment.NCCL, environment.FABRIC) if Path(path).exists()]
        if not self.rails and not network_files.ours() and not put_aside() and not told:
            return  # the most frequent case by far: links are off
        check_no_older()
        armed = unproved.read()
        wanted = Wanted.of(self)
        found = wanted.changes(context)
        clear = partial(settle, "a later deploy found that it had never been proved")
        if armed and not (armed.waits and is_of_run(armed.token, self.token)):
            says = "take back an earlier change that was never proved, then make it again"
            yield Step("links", says, clear, again=True)
        elif found and (armed or unproved.ended()):
            yield Step("links", "", clear, again=True)
        # One act, the last one's, makes all of them: what NCCL reads is known only once the devices are up.
        for at, change in enumerate(found, 1):
            act = wanted.make if at == len(found) else nothing
            yield Step(change.what, change.summary, act, change.diff)

    def carry_out(self, steps: Sequence[Step], troubles: Troubles) -> None:
        """Does the steps with the way back armed, and takes them back where one fails."""
        if not steps or steps[0].again:
            super().carry_out(steps, troubles)  # which comes back here with what is left to do
            return
        wanted = Wanted.of(self)
        armed = arm(self.token, wanted.touched(), self.confirm_within, wanted.way_back())
        try:
            super().carry_out(steps, troubles)
            unproved.set_stage(armed, "changed")
        except BaseException as error:
            settle(" ".join(str(error).split()) or type(error).__name__, error)
            raise


def put_aside() -> list[Path]:
    """Files of others that we keep for the way back."""
    folders = ("etc/netplan", "etc/systemd/network", network_files.KEYFILES)
    kept = [path for folder in folders for path in sorted((BACKUPS / folder).glob("*"))]
    return [Path("/") / path.relative_to(BACKUPS) for path in kept]


@dataclass(frozen=True)
class Wanted:
    """What is to be on this host: the request, settled with its hardware and programs."""

    asked: GuardedLink
    backend: network_files.Backend
    nics: dict[tuple[int, int], Nic]

    @classmethod
    def of(cls, asked: GuardedLink) -> Wanted:
        """Raises Refused: no such devices, or nobody to configure them."""
        which = [(rail["port"], rail["rail"]) for rail in asked.rails]
        return cls(asked, network_files.backend(), hardware.nics(which, asked.devices) if which else {})

    @property
    def names(self) -> list[str]:
        return [nic.name for nic in self.nics.values()]

    def filled(self, text: str) -> str:
        for (port, rail), nic in self.nics.items():
            text = text.replace(f"@{port}.{rail}@", nic.name)
        return text

    def files(self) -> list[Resource]:
        """Ours as they are to be; those that are not to be any more; those of others, back."""
        made: list[Resource] = []
        if self.nics and self.backend == "netplan":
            made.append(File(str(network_files.NETPLAN), self.filled(self.asked.netplan), mode=0o600))
        elif self.nics:
            for rail, path in zip(self.asked.rails, network_files.paths(self.backend, self.names), strict=True):
                made.append(File(str(path), self.filled(rail["text"])))
        kept = {part.path for part in made if isinstance(part, File)}
        gone = [path for path in network_files.ours() if str(path) not in kept]
        back = [] if self.nics else put_aside()
        return [*made, *(NoFile(str(path)) for path in [*gone, *back])]

    def told(self) -> list[Resource]:
        """What NCCL and others read, as the devices are now."""
        if self.nics and self.asked.environment:
            return [*environment.files(self.asked.rails, [*self.nics.values()], self.asked.environment)]
        return [NoFile(environment.NCCL), NoFile(environment.FABRIC)]

    def foreign(self) -> list[Path]:
        """Files of others to be put aside. Raises Refused where that was not asked for, or cannot be."""
        found = network_files.foreign(self.backend, [*self.nics.values()]) if self.nics else []
        for each in found:
            if each.others or not self.asked.take_over or not str(each.path).startswith("/etc/"):
                raise each.refusal()
        return [each.path for each in found]

    def wanted_live(self) -> dict[str, tuple[str, int | None]]:
        return {self.nics[r["port"], r["rail"]].name: (r["address"], r["mtu"]) for r in self.asked.rails}

    def changes(self, context: Context) -> list[Change]:
        found = [Change(str(path), "put aside: it comes back with `state: absent`") for path in self.foreign()]
        for part in self.files():
            found += part.plan(Context())
        for part in self.told():
            found += part.plan(Context())
        if not self.nics:
            return found
        live.check_no_overlap({subnet_of(rail) for rail in self.asked.rails}, self.names)
        if self.backend == "netplan" and any(change.what == str(network_files.NETPLAN) for change in found):
            network_files.check_as_a_whole(self.filled(self.asked.netplan))
        found += [Change(name, says) for name, says in live.differences(self.wanted_live()).items()]
        if dark := [name for name in self.names if hardware.has_carrier(name) is False]:
            line = f"{', '.join(dark)}: no carrier: is the cable in, and the host at its other end up?"
            if found:
                raise Refused(f"{line} Nothing was changed")
            context.warnings.append(line)
        return found

    def touched(self) -> Iterator[Path]:
        parts = [part for part in (*self.files(), *self.told()) if isinstance(part, File | NoFile)]
        for path in [*(Path(part.path) for part in parts), *self.foreign()]:
            yield path
            yield backup_of(path)

    def before(self) -> list[str]:
        """The devices that change: those that are to be, and those of our files that go."""
        old = [path.name.removesuffix(".network").rpartition("link-")[2] for path in network_files.ours()]
        plain = [name for name in old if (hardware.SYS / "class/net" / name).exists()]
        return [*dict.fromkeys([*self.names, *plain, *self.of_netplan()])]

    def of_netplan(self) -> list[str]:
        """The devices that our file for netplan names now."""
        if not network_files.NETPLAN.exists():
            return []
        lines = bounded.read_text(network_files.NETPLAN).splitlines()
        names = [line.strip(' ":') for line in lines if line.startswith('    "')]
        return [name for name in names if name and (hardware.SYS / "class/net" / name).exists()]

    def commands(self, content: str) -> list[list[str]]:
        by_networkd = self.backend == "networkd" or network_files.is_networkd(content, self.before())
        return live.into_force(self.backend, self.before(), by_networkd=by_networkd)

    def way_back(self) -> str:
        path = network_files.NETPLAN
        content = bounded.read_text(path) if self.backend == "netplan" and path.exists() else ""
        return live.way_back(self.commands(content), live.states(self.before()))

    def make(self) -> None:
        """Changes files and devices. Raises Failed where a device does not become what its file says."""
        names = self.before()
        commands = self.commands(self.filled(self.asked.netplan) if self.nics else "")
        aside = self.foreign()
        for path in aside:
            keep_backup(path)
            path.unlink()
            sync_directory(path.parent)
        for part in self.files():
            if part.plan(Context()):
                part.apply()
        if aside or not self.nics:
            live.reload_network_manager()
        for name in set(names) - set(self.names):
            run("ip", "-4", "address", "flush", "dev", name, "scope", "global")
            # Nobody else does: what is read next says an MTU, or leaves it as it is.
            run("ip", "link", "set", "dev", name, "mtu", "1500")
        for command in commands:
            run(*command)
        if self.nics:
            live.settle(self.wanted_live())
        for part in self.told():  # a GID is there only when the address is
            if part.plan(Context()):
                part.apply()


def subnet_of(rail: dict[str, Any]) -> str:
    return str(ipaddress.IPv4Interface(rail["address"]).network)


@dataclass(frozen=True)
class LinkProof(Resource):
    """Asks until every peer answers on each rail; nobody else may have our address.

    `rails`, `devices`: as in `GuardedLink`. `seconds`: how long peers have: they change in the same run.
    """

    kind: ClassVar[str] = "link_proof"
    done: ClassVar[set[str]] = set()
    token: str
    rails: list[dict[str, Any]]
    devices: list[str]
    seconds: float

    def steps(self, context: Context) -> Iterator[Step]:
        if self.token not in self.done:
            yield Step("links", "ask every peer on each rail", self._ask)

    def _ask(self) -> None:
        nics = hardware.nics([(rail["port"], rail["rail"]) for rail in self.rails], self.devices)
        for rail in self.rails:
            name, address = nics[rail["port"], rail["rail"]].name, str(rail["address"]).partition("/")[0]
            if other := answers.other_owner(name, address):
                raise Failed(f"{address} on {name} is in use by another machine, {other}")
        left = until_none(lambda: unanswered(self.rails, nics), self.seconds)
        if left:
            raise Failed(f"not every peer answers: {'; '.join(left[:4])}")
        self.done.add(self.token)


def unanswered(rails: Sequence[dict[str, Any]], nics: dict[tuple[int, int], Nic]) -> list[str]:
    """What each peer that does not answer on a rail lacks, one line each."""
    lines = []
    for rail in rails:
        device = nics[rail["port"], rail["rail"]].name
        mtu = int(hardware.word(hardware.SYS / "class/net" / device / "mtu"))
        for name, address in rail["peers"]:
            if reason := answers.echo(device, address, mtu):
                lines.append(f"{name} ({address}) on {device} {reason}")
    return lines


def until_none(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """Looks again until there is nothing, or the time is up; what is left then."""
    until = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < until:
        time.sleep(1)
    return left
