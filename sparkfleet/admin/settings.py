"""`sparkfleet settings HOST`: each value, and the level and line of the fleet file that it comes from."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sparkfleet.admin.asking import connected
from sparkfleet.audit.collect import target_of
from sparkfleet.deploy.command import measures
from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import chosen_fleet, known_host
from sparkfleet.settings import HostSettings, Share, Size
from sparkfleet.settings.fleet import Level, join, levels_of
from sparkfleet.settings.problems import Path as Key
from sparkfleet.settings.problems import dotted, escaped, show
from sparkfleet.settings.yaml_file import Document, read_yaml

TEXT = """\
Says every setting of a host, and where it comes from: the default, or a level and a line of the fleet file. Of a size
that is a share of the host's memory also the rule, and the value where that memory is known: by --memory, or from
the host, which is asked for it and for nothing else."""
EPILOG = """\
exit code: 0, also where the host is not reached (its shares are then shown as rules); 4 for a bad configuration."""
MEMORY = "head -c 4096 /proc/meminfo"
DEFAULT = "default"


@dataclass(frozen=True)
class Value:
    """One setting of a host. `origin`: `default`, or file, line and level. `rule`, `resolved`: of a share alone."""

    key: str
    value: Any
    origin: str
    rule: str | None = None
    resolved: str | None = None


def add_arguments(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "settings", help="say what is set for a host, and where", description=TEXT, epilog=EPILOG
    )
    parser.add_argument("host", metavar="HOST", help="name of a host, as the fleet file has it")
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument("--only", action="append", default=[], metavar="MEASURE", help="this measure; again for more")
    parser.add_argument("--memory", type=memory, metavar="SIZE", help="of the host, such as 120GiB; it is not asked")
    parser.add_argument("--set", action="store_true", dest="is_set", help="only what the fleet file sets")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=settings)


def memory(text: str) -> Size:
    try:
        return Size.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {show(text)}, expected a size such as 120GiB") from error


def settings(arguments: argparse.Namespace) -> ExitCode:
    """Prints them. Raises CommandFailed or FleetError."""
    path, fleet = chosen_fleet(arguments.fleet)
    host = known_host(fleet, arguments.host, path)
    only = measures(arguments.only)
    found = values(read_yaml(path), host.name, host.settings)
    if only:
        found = [one for one in found if one.key.split(".")[0] in only]
    if arguments.is_set:
        found = [one for one in found if one.origin != DEFAULT]
    total, problem = arguments.memory, ""
    if total is None and any(one.rule for one in found):
        total, problem = memory_of(target_of(host, fleet.known_hosts).route)
    found = [resolved(one, host.settings, total) for one in found]
    if problem:
        print(f"sparkfleet: {host.name}: {problem}: shares of its memory are shown as rules", file=sys.stderr)
    print(json.dumps([asdict(one) for one in found], indent=1) if arguments.json else "\n".join(table(found)))
    return ExitCode.CLEAN


def values(document: Document, name: str, effective: HostSettings) -> list[Value]:
    """Every setting of a host, mappings key by key, in the order of docs/settings.md."""
    levels = levels_of(document.value, name)
    joined = join([level.raw for level in levels])
    return [
        Value(dotted(key), value, origin(document, levels, joined, key), rule_of(effective, key))
        for key, value in leaves(effective.model_dump(mode="json"))
    ]


def leaves(value: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """A mapping's values by the way to them; an empty mapping is a value."""
    for key, one in value.items():
        if isinstance(one, dict) and one:
            yield from leaves(one, (*above, key))
        else:
            yield (*above, key), one


def origin(document: Document, levels: list[Level], joined: Mapping[str, Any], key: Key) -> str:
    """Where a value comes from. What a nearer level has made void (`starts_anew`) is in none of the joined ones."""
    if not holds(joined, key):
        return DEFAULT
    level = next((level for level in reversed(levels) if holds(level.raw, key)), None)
    if level is None:
        return DEFAULT
    where = dotted(level.path[:2])
    return f"{document.file}:{document.line((*level.path, *key))} ({where})"


def holds(raw: Any, key: Key) -> bool:
    """Whether a value stands there. A list or a text that stands higher up holds all that it is made into."""
    for part in key:
        if not isinstance(raw, dict):
            return raw is not None
        if part not in raw:
            return False
        raw = raw[part]
    return True


def share_at(effective: HostSettings, key: Key) -> Share | None:
    value: Any = effective
    for part in key:
        value = getattr(value, str(part), None) if isinstance(value, BaseModel) else None
    return value if isinstance(value, Share) else None


def rule_of(effective: HostSettings, key: Key) -> str | None:
    share = share_at(effective, key)
    return f"{share.numerator}/{share.denominator} of the host's memory" if share else None


def resolved(one: Value, effective: HostSettings, total: int | None) -> Value:
    """The same with the size that it has on a host of so much memory (bytes)."""
    share = share_at(effective, tuple(one.key.split(".")))
    if share is None or total is None:
        return one
    return Value(one.key, one.value, one.origin, one.rule, str(Size(share.of(total))))


def memory_of(route: Route | None) -> tuple[int | None, str]:
    """A host's memory (MemTotal, bytes), or why it is not known."""
    try:
        answer = connected(route).run(MEMORY) if route else None
    except CommandFailed as error:
        return None, str(error)
    if answer is None or answer.lost:
        return None, answer.reason if answer else "there is no way to it"
    match = re.search(r"^MemTotal: +([0-9]{1,12}) kB$", answer.stdout, re.MULTILINE)
    return (int(match[1]) * 1024, "") if match else (None, "it does not say how much memory it has")


def table(found: list[Value]) -> list[str]:
    """A line a setting, in columns."""
    rows = [(one.key, words(one), one.origin) for one in found]
    widths = [min(60, max((len(row[at]) for row in rows), default=0)) for at in (0, 1)]
    return [f"{key:<{widths[0]}}  {value:<{widths[1]}}  {where}" for key, value, where in rows]


def words(one: Value) -> str:
    """A value for a person."""
    text = one.value if isinstance(one.value, str) else json.dumps(one.value, ensure_ascii=False)
    text = escaped(text) or '""'
    if one.rule:
        return f"{text} = {one.resolved} ({one.rule})" if one.resolved else f"{text} ({one.rule})"
    return text
