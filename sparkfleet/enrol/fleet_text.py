"""The text of a fleet file with a host put in. Nothing that is there is taken away or written anew."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Entry = Mapping[str, Any]
"""A host as the file declares it: address, port, user, ssh_key, groups; only what is given."""

COMMENT = re.compile(r"( *)#[^\n]*(?:\n|\Z)")
PLAIN = re.compile(r"[A-Za-z0-9~/_][A-Za-z0-9~/_.@+:%-]*")


@dataclass(frozen=True)
class _Place:
    """Where a host is put in, and how it is written there."""

    index: int
    text: str


def inserted(text: str, name: str, entry: Entry) -> str | None:
    """The text with a host at the end of `hosts`; None where that cannot be done by adding to it.

    The text must be a fleet file that can be read.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text.removeprefix(mark)
    root = yaml.compose(body, yaml.BaseLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    place = place_in(body, root, name, entry)
    if place is None:
        return None
    added = place.text.replace("\n", "\r\n") if "\r\n" in body else place.text
    result = body[: place.index] + added + body[place.index :]
    return mark + result if same_but(body, result, name, entry) else None


def place_in(text: str, root: yaml.MappingNode, name: str, entry: Entry) -> _Place | None:
    """Where the host goes: before the brace of `{}`, after the last host of a block, else after the key itself."""
    found = [(key, value) for key, value in root.value if key.value == "hosts"]
    if not found and not root.flow_style:
        newline = "" if text.endswith("\n") or not text else "\n"
        return _Place(len(text), f"{newline}\nhosts:\n{block(name, entry, '  ', '  ')}")
    if len(found) != 1:
        return None
    key, hosts = found[0]
    if isinstance(hosts, yaml.ScalarNode) and hosts.value == "":
        outer = " " * key.start_mark.column
        return _after_line(text, key.end_mark.index, block(name, entry, outer + "  ", "  "))
    if not isinstance(hosts, yaml.MappingNode):
        return None
    if hosts.flow_style:
        brace = hosts.end_mark.index - 1
        inside = text[hosts.start_mark.index + 1 : brace].rstrip()
        if "#" in inside:  # the brace may stand below a comment
            return None
        comma = " " if inside.endswith(",") else ", " if hosts.value else ""
        return _Place(hosts.start_mark.index + 1 + len(inside), f"{comma}{flow(name, entry)}")
    last = hosts.value[-1][0]
    margin: int = last.start_mark.column
    inner: int = next(
        (
            v.value[0][0].start_mark.column - k.start_mark.column
            for k, v in hosts.value
            if isinstance(v, yaml.MappingNode) and v.value and not v.flow_style
        ),
        2,
    )
    lines = block(name, entry, " " * margin, " " * inner)
    end = _own_comments(text, line_end(text, last_index(hosts)), margin)
    if len(hosts.value) > 1 and _blank_before(text, last.start_mark.index):
        lines = f"\n{lines}"
    return _after_line(text, end, lines)


def _after_line(text: str, index: int, lines: str) -> _Place:
    """After the line of `index`, which may be the last one and have no end."""
    end = line_end(text, index)
    return _Place(end, lines) if text[:end].endswith("\n") else _Place(end, f"\n{lines}")


def line_end(text: str, index: int) -> int:
    """The index after the newline of the line in which `index` stands (or which it ends)."""
    if index and text[index - 1] == "\n":
        return index
    return (text.find("\n", index) + 1) or len(text)


def last_index(node: yaml.Node) -> int:
    """Where the last thing of a node ends; a block's own end mark lies after the comments that follow it."""
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        if isinstance(last, tuple):
            return max(last_index(last[0]), last_index(last[1]))
        return last_index(last)
    index: int = node.end_mark.index
    return index


def _own_comments(text: str, index: int, margin: int) -> int:
    """Past the comments that follow without a blank line and are indented as far as a host or further."""
    while (line := COMMENT.match(text, index)) and len(line[1]) >= margin:
        index = line.end()
    return index


def _blank_before(text: str, index: int) -> bool:
    """Whether a blank line stands above the comments of the line of `index`."""
    above = text[:index].split("\n")[:-1]
    while above and above[-1].lstrip().startswith("#"):
        above.pop()
    return bool(above) and not above[-1].strip()


def new_text(known_hosts: str, name: str, entry: Entry) -> str:
    """A fleet of one host."""
    return (
        "# A fleet of DGX Sparks. Every setting: docs/settings.md\n"
        f"version: 1\nknown_hosts: {scalar(known_hosts)}\n\nhosts:\n{block(name, entry, '  ', '  ')}"
    )


def block(name: str, entry: Entry, margin: str = "  ", inner: str = "  ") -> str:
    """A host on lines of its own; `inner` is how much further its keys are indented."""
    lines = [f"{margin}{scalar(name)}:"]
    for key, value in entry.items():
        if isinstance(value, list):
            lines.append(f"{margin}{inner}{key}: [{', '.join(map(scalar, value))}]")
        else:
            lines.append(f"{margin}{inner}{key}: {scalar(value)}")
    return "\n".join(lines) + "\n"


def flow(name: str, entry: Entry) -> str:
    """A host as it stands between braces."""
    parts = []
    for key, value in entry.items():
        words = [
            json.dumps(item) if isinstance(item, str) and ":" in item else scalar(item)
            for item in (value if isinstance(value, list) else [value])
        ]
        parts.append(f"{key}: {'[' + ', '.join(words) + ']' if isinstance(value, list) else words[0]}")
    return f"{scalar(name)}: {{{', '.join(parts)}}}"


def scalar(value: str | int) -> str:
    """A value as YAML, in quotes where YAML 1.1 or 1.2 could take it for something else than text."""
    if isinstance(value, int):
        return str(value)
    plain = PLAIN.fullmatch(value) and not value.endswith(":") and yaml.safe_load(value) == value
    return value if plain else json.dumps(value)


def same_but(before: str, after: str, name: str, entry: Entry) -> bool:
    """Whether the second text holds what the first does, this host besides, and nothing else."""
    try:
        old, new = yaml.load(before, yaml.BaseLoader), yaml.load(after, yaml.BaseLoader)
    except yaml.YAMLError:
        return False
    expected = {
        key: [str(item) for item in value] if isinstance(value, list) else str(value) for key, value in entry.items()
    }
    hosts = old.get("hosts") or {}
    return bool(name not in hosts and new == {**old, "hosts": {**hosts, name: expected or ""}})
