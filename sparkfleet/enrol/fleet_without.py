"""The text of a fleet file without one of its hosts. All else stays as it is, byte for byte."""

from __future__ import annotations

from pathlib import Path

import yaml

from sparkfleet.enrol.fleet_file import Draft, checked
from sparkfleet.enrol.fleet_text import last_index, line_end
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings.problems import escaped
from sparkfleet.settings.yaml_file import read_yaml


def without(text: str, name: str) -> str | None:
    """The text without this host; None where that cannot be done by cutting it out. Comments above it stay: they may be
    about more than it.

    The text must be a fleet file that can be read.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text.removeprefix(mark)
    root = yaml.compose(body, yaml.BaseLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    for key, hosts in root.value:
        if key.value == "hosts" and isinstance(hosts, yaml.MappingNode):
            cut = span(body, hosts, name)
            if cut is None:
                return None
            result = body[: cut[0]] + body[cut[1] :]
            return mark + result if same_without(body, result, name) else None
    return None


def span(text: str, hosts: yaml.MappingNode, name: str) -> tuple[int, int] | None:
    """From where to where a host is written, with the comma or the line end that belongs to it."""
    for at, (key, value) in enumerate(hosts.value):
        if key.value != name:
            continue
        start, end = key.start_mark.index, last_index(value)
        if hosts.flow_style:
            following = hosts.value[at + 1 : at + 2]
            if following:
                return start, following[0][0].start_mark.index
            before = hosts.value[at - 1][1] if at else None
            return (last_index(before) if before else start), end
        start -= key.start_mark.column
        if text[start : key.start_mark.index].strip():  # `? ` and such
            return None
        return start, line_end(text, max(end, key.end_mark.index))
    return None


def same_without(before: str, after: str, name: str) -> bool:
    """Whether the second text holds what the first does but for this host."""
    try:
        old, new = yaml.load(before, yaml.BaseLoader), yaml.load(after, yaml.BaseLoader)
    except yaml.YAMLError:
        return False
    hosts = {key: value for key, value in (old.get("hosts") or {}).items() if key != name}
    return isinstance(new, dict) and new == {**old, "hosts": hosts}


def draft_without(path: Path, name: str) -> Draft:
    """The file without this host, checked, not written.

    Raises:
        FleetError: the file has mistakes.
        CommandFailed: the host cannot be taken out, or is the only one.
    """
    document = read_yaml(path)
    hosts = document.value.get("hosts") if isinstance(document.value, dict) else None
    shown = escaped(str(path))
    if isinstance(hosts, dict) and list(hosts) == [name]:
        raise CommandFailed(
            f"{shown}: {name} is its only host, and a fleet file has at least one: delete the file yourself",
            ExitCode.BAD_CONFIGURATION,
        )
    before = path.read_bytes()
    text = without(before.decode("utf-8"), name)
    if text is None:
        line = document.line(("hosts", name)) or 1
        raise CommandFailed(
            f"{shown}:{line}: {name} is written in a way that cannot be cut out: take it out yourself",
            ExitCode.BAD_CONFIGURATION,
        )
    after = text.encode()
    return Draft(path, before, after, checked(path, after, name))
