"""Reads YAML as people mean it: `off` is text, a key given twice is a mistake, and every key knows its line.

PyYAML reads YAML 1.1, in which `off` is false, `22:30` is 1350 and `022` is 18. Here plain scalars follow the core
schema of YAML 1.2 (chapter 10.3.2), with one difference: a number with a leading zero is text, because some would
read it as octal and some as decimal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from sparkfleet.settings.problems import FleetError, Path, Problem, dotted, escaped, show

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

TAG = "tag:yaml.org,2002:"
# Far above any fleet; a file of a few lines can expand without end through aliases of aliases.
MOST_NODES = 200_000
LONGEST_NUMBER = 100


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own attribute


# First match wins: an int is also a float. `\Z`: PyYAML only matches the start.
for _name, _pattern, _first in (
    ("null", NULL, ["~", "n", "N", ""]),
    ("bool", BOOL, list("tTfF")),
    ("int", INT, list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)


@dataclass
class Document:
    """What a YAML file holds."""

    file: str
    """The file as messages name it."""
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the file although it could be read: keys given twice, for example."""

    def line(self, path: Path) -> int | None:
        """The line on which a key stands, or the nearest one above it that is in the file."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def complaints(self, problems: Iterable[Problem]) -> Iterator[str]:
        """The problems as lines of text, in the file's order; one that is there twice is said once."""
        placed = ((p.line or self.line(p.path) or 1, p) for p in dict.fromkeys(problems))
        for line, problem in sorted(placed, key=lambda pair: pair[0]):
            key = f"{dotted(problem.path)}: " if problem.path else ""
            yield f"{self.file}:{line}: {key}{problem.text}"


def read_yaml(path: FilePath, *, example: str = "inventories/example.yaml") -> Document:
    """Reads a file. `example` names one of its kind, for whoever left it empty.

    Raises:
        FleetError: it cannot be read, or it is not YAML.
    """
    document = Document(_shown(path))
    text = _text(path, document.file)
    try:
        root = yaml.compose(text, _Loader)
        if root is None:
            raise FleetError([f"{document.file}: is empty ({example} shows what belongs here)"])
        document.value = _Builder(document).build(root, ())
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FleetError(
            [f"{document.file}:{line}: character U+{ord(text[error.position]):04X} is not allowed in YAML"]
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}" if mark else ""
        raise FleetError([f"{document.file}{at}: {_reason(error)}"]) from error
    except RecursionError as error:
        raise FleetError([f"{document.file}: is nested too deeply"]) from error
    return document


def _shown(path: FilePath) -> str:
    """The file as the user knows it: relative where it is below the current directory."""
    absolute, here = FilePath.cwd() / path, FilePath.cwd()
    return escaped(str(absolute.relative_to(here) if absolute.is_relative_to(here) else path))


def _text(path: FilePath, shown: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = {
            FileNotFoundError: "there is no such file",
            IsADirectoryError: "is a directory, expected a YAML file",
        }.get(type(error), f"cannot be read: {error.strerror}")
        raise FleetError([f"{shown}: {reason}"]) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FleetError([f"{shown}:{line}: byte 0x{data[error.start]:02x} is not UTF-8"]) from error


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not YAML"
    if "'\\t'" in problem:
        return "a tab: YAML is indented with spaces"
    if "expected a single document" in (error.context or ""):
        return "a second document (---), expected one"
    context = f" ({error.context})" if error.context else ""
    return escaped(f"not YAML: {problem}{context}")


class _Builder:
    """Makes values of YAML nodes. PyYAML's constructor keeps the last of two equal keys and forgets the lines."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0
        self.open: set[int] = set()
        """The nodes that are being built: an alias to one of them would never end."""

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        self.count += 1
        if self.count > MOST_NODES:
            raise FleetError([f"{self.document.file}: holds more than {MOST_NODES} values"])
        if id(node) in self.open:
            return self.problem(node, path, "an alias to a value that it is part of")
        self.open.add(id(node))
        try:
            return self.value(node, path)
        finally:
            self.open.remove(id(node))

    def value(self, node: yaml.Node, path: Path) -> Any:
        kind = node.tag.removeprefix(TAG)
        match node:
            case yaml.MappingNode() if kind == "map":
                return self.mapping(node, path)
            case yaml.SequenceNode() if kind == "seq":
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode() if kind in ("str", "null", "bool", "int", "float"):
                return self.scalar(kind, node, path)
        return self.problem(node, path, f"the tag {show(node.tag)} is not allowed")

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, path, "a key that is a list or a mapping, expected text")
                continue
            key = key_node.value
            if key_node.tag != TAG + "str":
                self.problem(key_node, (*path, key), f'a key that is not text, put it in quotes: "{escaped(key)}"')
            elif key in result:
                first = self.document.lines[*path, key]
                self.problem(key_node, (*path, key), f"is given twice, first on line {first}")
            else:
                self.document.lines[*path, key] = key_node.start_mark.line + 1
                result[key] = self.build(value_node, (*path, key))
        return result

    def scalar(self, kind: str, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        pattern = {"null": NULL, "bool": BOOL, "int": INT, "float": FLOAT}.get(kind)
        if pattern and not pattern.fullmatch(text):
            return self.problem(node, path, f"got {show(text)}, expected a value of the type !!{kind}")
        if kind in ("int", "float") and len(text) > LONGEST_NUMBER:
            return self.problem(node, path, f"a number of {len(text)} digits")
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 0)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text

    def problem(self, node: yaml.Node, path: Path, text: str) -> None:
        self.document.problems.append(Problem(path, text, node.start_mark.line + 1))
