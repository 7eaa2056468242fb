"""/etc/sparkfleet/watchdog.toml: read, checked, and refused in one line that says which key and what to do."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sparkhost.base import shares, small_files
from sparkhost.watchdog.gpu import Use
from sparkhost.watchdog.model import GIB, MIB, Policy
from sparkhost.watchdog.work import Preferences

PATH = Path("/etc/sparkfleet/watchdog.toml")
UNITS = {"B": 1, "KiB": 2**10, "MiB": MIB, "GiB": GIB, "TiB": 2**40}
# A file of ours has a few hundred bytes; a copy of it must fit into one message to the teller.
LARGEST = 1 << 14
# The copy of the last file that was accepted, in the daemon's state directory.
ACCEPTED = "accepted.toml"


class BadConfig(Exception):
    """A file that is refused. The text is one line."""


@dataclass(frozen=True, slots=True)
class Config:
    """All that the file says."""

    policy: Policy = field(default_factory=Policy)
    preferences: Preferences = field(default_factory=Preferences)
    gpu_memory: Use = "auto"
    gpu_stale_after: float = 5.0
    never_frozen: tuple[str, ...] = ("@sudo", "@admin", "@wheel")
    """Accounts, and groups as `@sudo`, whose logins are never frozen; root's are not in any case."""
    textfile: str = ""
    """Directory of the node exporter's textfile collector; "" for none."""
    text: str = ""
    """As it was read: what is kept once it is accepted."""


def size(value: Any) -> int:
    match = re.fullmatch(r"([0-9]{1,15})(B|KiB|MiB|GiB|TiB)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError('a size such as "16GiB" or "512MiB"')
    return int(match[1]) * UNITS[match[2]]


def seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86400:
        raise ValueError("a number of seconds from 0 to 86400")
    return float(value)


def switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and re.fullmatch(r"[!-~]{1,200}", v) for v in value):
        raise ValueError('a list of unit names or patterns, such as ["ollama.service", "docker-*.scope"]')
    return tuple(value)


def people(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and re.fullmatch(r"@?[!-~]{1,64}", v) for v in value):
        raise ValueError('a list of accounts, and of groups with an @, such as ["ann", "@sudo"]')
    return tuple(value)


def one_of(*words: str) -> Callable[[Any], str]:
    """A key that takes one of these words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"{', '.join(words[:-1])} or {words[-1]}")
        return str(value)

    return check


def directory(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"|/[!-~]{1,200}", value):
        raise ValueError("an absolute path, or an empty text for none")
    return value


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "term_below": size,
    "kill_below": size,
    "far": seconds,
    "near": seconds,
    "fastest_fill": size,
    "grace": seconds,
    "recovery_wait": seconds,
    "smallest_victim": size,
    "system_unit_above": size,
    "drop_page_cache": switch,
    "drop_free_below": size,
    "drop_every": seconds,
    "brake": one_of("all", "jobs", "off"),
    "brake_at_most": seconds,
    "never_frozen": people,
    "over_promise": one_of("first", "end", "tell"),
    "protect": patterns,
    "prefer": patterns,
    "gpu_memory": one_of("auto", "always", "never"),
    "gpu_stale_after": seconds,
    "textfile": directory,
}


def parse(text: str, file: str, total: int) -> Config:
    """The configuration in a text. `total`: MemTotal of the host, in bytes.

    Raises:
        BadConfig: one line, with the first mistake.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{file}: is no TOML: {one_line(error)}") from None
    except RecursionError:
        raise BadConfig(f"{file}: is no TOML: brackets in too many brackets") from None
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in KEYS:
            raise BadConfig(f"{file}: {one_line(key)}: unknown key: remove it, or one of {', '.join(KEYS)}")
        try:
            values[key] = KEYS[key](value)
        except ValueError as error:
            raise BadConfig(f"{file}: {key}: got {one_line(repr(value))}, expected {error}") from None
    # What the file leaves out is a share of this host's memory.
    values.setdefault("term_below", shares.part(total, *shares.TERM_BELOW))
    values.setdefault("kill_below", values["term_below"] // 2)
    policy = Policy(**{f.name: values[f.name] for f in fields(Policy) if f.name in values})
    check(policy, file, total)
    preferences = Preferences(values.get("protect", ()), values.get("prefer", ()))
    rest = {
        name: values[name] for name in ("never_frozen", "gpu_memory", "gpu_stale_after", "textfile") if name in values
    }
    return Config(policy, preferences, text=text, **rest)


def check(policy: Policy, file: str, total: int) -> None:
    """Checks what goes together, and with the host.

    Raises:
        BadConfig: it does not.
    """

    def refuse(key: str, text: str) -> None:
        raise BadConfig(f"{file}: {key}: {text}")

    if not 0 < policy.kill_below < policy.term_below:
        refuse("kill_below", f"is {policy.kill_below} bytes, expected less than term_below ({policy.term_below})")
    if not 1 <= policy.brake_at_most <= 30:
        refuse("brake_at_most", f"is {policy.brake_at_most}, expected 1 to 30 seconds")
    if policy.term_below * 2 > total:
        refuse(
            "term_below",
            f"is {policy.term_below // MIB} MiB, more than half of this host's {total // MIB} MiB: "
            "little could run: lower it",
        )
    if not 0.005 <= policy.near <= 0.05:
        refuse("near", f"is {policy.near}, expected 0.005 to 0.05 seconds")
    if not policy.near <= policy.far <= 5:
        refuse("far", f"is {policy.far}, expected near ({policy.near}) to 5 seconds")
    if policy.fastest_fill < 64 * MIB:
        refuse("fastest_fill", f"is {policy.fastest_fill} bytes a second, expected 64MiB or more")
    if not 0.5 <= policy.recovery_wait <= 60:
        refuse("recovery_wait", f"is {policy.recovery_wait}, expected 0.5 to 60 seconds")
    if policy.drop_every < 10:
        refuse("drop_every", f"is {policy.drop_every}, expected 10 seconds or more")


def warnings(config: Config, total: int, cgroups: Path = Path("/sys/fs/cgroup")) -> list[str]:
    """What is allowed, and yet is not what somebody may expect."""
    try:
        cap = int((cgroups / "training.slice" / "memory.max").read_text())
    except (OSError, ValueError):
        return []
    room = total - config.policy.term_below
    if cap <= room:
        return []
    return [
        f"training.slice may take {cap // MIB} MiB, but with all else at nothing MemAvailable is below term_below from "
        f"{room // MIB} MiB on: a job is ended before it reaches the slice's cap"
    ]


def load(path: Path, total: int) -> Config:
    """Reads a file, which must be root's and writable by root only.

    Raises:
        BadConfig: as `parse`, or it cannot be read, or others may write to it.
    """
    try:
        status = path.stat()
        if status.st_uid != 0 or status.st_mode & 0o022:
            raise BadConfig(f"{path}: others than root may write to it: chown root:root and chmod 0644")
        text = small_files.read(str(path), LARGEST + 1)
        if not stat.S_ISREG(status.st_mode) or len(text) > LARGEST:
            raise BadConfig(f"{path}: is no file, or has more than {LARGEST} bytes: no configuration of the watchdog")
        return parse(text.decode(), str(path), total)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}: deploy again, or see docs/watchdog.md") from None
    except UnicodeDecodeError:
        raise BadConfig(f"{path}: is not UTF-8") from None


def load_or_accepted(path: Path, state_dir: Path, total: int) -> tuple[Config, str]:
    """The file's configuration; where it is refused, that of the last file that was accepted, and why the first was.

    Raises:
        BadConfig: neither can be used; with what is wrong with the file.
    """
    try:
        return load(path, total), ""
    except BadConfig as problem:
        try:
            return load(state_dir / ACCEPTED, total), str(problem)
        except BadConfig:
            raise problem from None


def one_line(value: object) -> str:
    """A text that a terminal may show, cut."""
    text = str(value)[:120]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
