"""The files that configure devices: ours, and those of others, read as the host's own programs read them.

How it works: netplan(5) joins all its files, so two that name a device give it both addresses. Which devices a file
is about, and whether all files together are valid, is asked of `netplan generate` in a scratch root, where it writes
for systemd-networkd or NetworkManager what it would write below /run. systemd-networkd takes, for each device, the
first of its own files that matches, so ours has an early name there.
"""

from __future__ import annotations

import configparser
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from sparkhost.base import bounded
from sparkhost.base.resource import Failed, Refused
from sparkhost.cluster_link.hardware import Nic
from sparkhost.ssh.rollback import is_active

ROOT = Path("/")
NETPLAN = Path("/etc/netplan/60-sparkfleet-cluster-link.yaml")
NETWORKD = "05-sparkfleet-cluster-link-{}.network"
OURS = "sparkfleet-cluster-link"
NETPLAN_FOLDERS = ("usr/lib/netplan", "etc/netplan", "run/netplan")
NETWORKD_FOLDERS = ("etc/systemd/network", "run/systemd/network", "usr/lib/systemd/network")
KEYFILES = "etc/NetworkManager/system-connections"
WILD = ("*", "?", "[", "!")

Backend = Literal["netplan", "networkd"]


@dataclass(frozen=True)
class Foreign:
    """A file of somebody else's that configures one of our devices.

    `others`: what else it configures, "" where nothing: only then can it be put aside as a whole.
    """

    path: Path
    device: str
    others: str = ""

    def refusal(self) -> Refused:
        if self.others:
            return Refused(
                f"{self.path} configures {self.device}, and {self.others} as well: take {self.device} out of it by "
                "hand, then deploy again"
            )
        return Refused(
            f"{self.path} configures {self.device} already: remove it, or set cluster_link.take_over: true, which puts "
            "it aside until `state: absent`"
        )


def backend() -> Backend:
    """Who is to be told of addresses on this host.

    Raises:
        Refused: neither netplan nor systemd-networkd.
    """
    if shutil.which("netplan", path="/usr/sbin:/usr/bin:/sbin:/bin"):
        return "netplan"
    if is_active("systemd-networkd.service"):
        return "networkd"
    raise Refused("neither netplan nor systemd-networkd is here to give the links their addresses: install one")


def paths(kind: Backend, names: Sequence[str]) -> list[Path]:
    """Our files for these devices."""
    if kind == "netplan":
        return [NETPLAN]
    return [Path("/etc/systemd/network") / NETWORKD.format(name) for name in names]


def ours() -> list[Path]:
    """Those of our files that are there, for whatever device and program."""
    return [path for path in (NETPLAN, *sorted(Path("/etc/systemd/network").glob(f"*{OURS}*"))) if path.exists()]


def foreign(kind: Backend, nics: Sequence[Nic]) -> list[Foreign]:
    """Every file of somebody else's that configures one of these devices."""
    found = [*networkd_files(kind, nics), *keyfiles(nics)]
    if kind == "netplan":
        found += netplan_files(nics)
    return found


def check_as_a_whole(content: str) -> None:
    """Has netplan read all files with ours as it is to be. Raises Refused with what it says."""
    files = {path: bounded.read(path) for path in yaml_files() if path != NETPLAN}
    try:
        generated({**files, NETPLAN: content.encode()})
    except Failed as error:
        raise Refused(f"netplan refuses the file that is to be {NETPLAN}: {error}") from error


def is_networkd(content: str, names: Sequence[str]) -> bool:
    """Whether netplan gives these devices to systemd-networkd, as all files together say; else NetworkManager has them.

    Raises Failed: netplan does not take the files.
    """
    files = {path: bounded.read(path) for path in yaml_files() if path != NETPLAN}
    written = generated({**files, **({NETPLAN: content.encode()} if content else {})})
    return not any(
        path.suffix == ".nmconnection" and any(name in text for name in names) for path, text in written.items()
    )


def yaml_files() -> list[Path]:
    return [path for folder in NETPLAN_FOLDERS for path in sorted((ROOT / folder).glob("*.yaml"))]


def generated(files: Mapping[Path, bytes]) -> dict[Path, str]:
    """What `netplan generate` makes of these files, below a scratch root. Raises Failed with what it says."""
    with tempfile.TemporaryDirectory(prefix="sparkfleet-netplan-") as name:
        root = Path(name)
        for path, content in files.items():
            there = root / path.relative_to(ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(content)
            there.chmod(0o600)
        done = bounded.call(["netplan", "generate", "--root-dir", name], seconds=60)
        if done.returncode:
            # It draws the place below its message; the line that names a file is the one to show.
            said = [line for line in done.stderr.splitlines() if ".yaml" in line] or done.stderr.splitlines()
            raise Failed((said or ["netplan generate says nothing"])[0].replace(name, "").strip())
        folders = ("run/systemd/network", "run/NetworkManager/system-connections")
        made = [path for folder in folders for path in sorted((root / folder).glob("*"))]
        return {path.relative_to(root): bounded.read_text(path) for path in made if path.suffix != ".link"}


def netplan_files(nics: Sequence[Nic]) -> Iterator[Foreign]:
    words = [*(nic.name for nic in nics), *(nic.mac for nic in nics), "match"]
    for path in yaml_files():
        content = bounded.read(path)
        text = content.decode(errors="replace").lower()
        if path == NETPLAN or not any(word.lower() in text for word in words):
            continue
        try:
            made = generated({path: content})
        except Failed:  # it rests on another file: its words must do
            device = next((nic.name for nic in nics if nic.name in text), "")
            if device:
                yield Foreign(path, device, "it cannot be read alone, perhaps more")
            continue
        about = {one: matched(one.suffix, section, nics) for one, section in made.items()}
        if device := next(filter(None, about.values()), ""):
            others = [one.name for one, name in about.items() if not name]
            yield Foreign(path, device, ", ".join(others[:3]))


def networkd_files(kind: Backend, nics: Sequence[Nic]) -> Iterator[Foreign]:
    """systemd-networkd's own files. One for many devices (`Name=en*`) stands behind ours, and does not count then."""
    first = "10-netplan-" if kind == "netplan" else NETWORKD
    for folder in NETWORKD_FOLDERS:
        for path in sorted((ROOT / folder).glob("*.network")):
            if OURS in path.name or path.name.startswith("10-netplan-"):
                continue
            text = bounded.read_text(path)
            device, patterns = matched(path.suffix, text, nics), patterns_of(path.suffix, text)
            is_for_many = any(mark in pattern for pattern in patterns for mark in WILD)
            if device and (not is_for_many or path.name < first):
                others = [pattern for pattern in patterns if pattern not in about_us(nics)]
                yield Foreign(path, device, ", ".join(others))


def keyfiles(nics: Sequence[Nic]) -> Iterator[Foreign]:
    for path in sorted((ROOT / KEYFILES).glob("*")):
        if path.is_file() and (device := matched(".nmconnection", bounded.read_text(path), nics)):
            yield Foreign(path, device)


def about_us(nics: Sequence[Nic]) -> set[str]:
    return {word for nic in nics for word in (nic.name, nic.mac)}


def matched(suffix: str, text: str, nics: Sequence[Nic]) -> str:
    """The first of these devices that such a file names, by name or MAC; "" where none."""
    patterns = patterns_of(suffix, text)
    for nic in nics:
        if any(fnmatchcase(nic.name, pattern) or pattern.lower() == nic.mac for pattern in patterns):
            return nic.name
    return ""


class Sections(configparser.ConfigParser):
    """Keys as they stand: systemd-networkd's have capitals."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def patterns_of(suffix: str, text: str) -> list[str]:
    """The names and MACs that a .network file or a keyfile of NetworkManager is for."""
    parser = Sections(strict=False, interpolation=None, delimiters=("=",), allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        return []
    keys = {
        ".network": (("Match", "Name"), ("Match", "OriginalName"), ("Match", "MACAddress"),
                     ("Match", "PermanentMACAddress")),
        ".nmconnection": (("connection", "interface-name"), ("match", "interface-name"), ("ethernet", "mac-address")),
    }[suffix]  # fmt: skip
    found = [parser.get(section, key, fallback="") or "" for section, key in keys]
    return [word for value in found for word in value.replace(";", " ").split()]
