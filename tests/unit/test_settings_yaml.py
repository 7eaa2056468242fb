"""The YAML reader: scalars as people mean them, lines for keys, and one clear line for what is not YAML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from sparkfleet.settings.problems import FleetError, dotted
from sparkfleet.settings.yaml_file import Document, read_yaml

UNTIMED = hypothesis.settings(deadline=None)  # the machine may be busy


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes) -> Document:
    path = Path("fleet.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("off", "on", "yes", "no", "y", "N", "Off", "NO", "<<", "=")),
        *((text, text) for text in ("022", "22:30", "1_000", "0b11", "2026-01-02", "0o8", "1.2.3", "00", "08.5")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *((text, None) for text in ("null", "~", "Null", "NULL", "")),
        *(("0", 0), ("-12", -12), ("+3", 3), ("0o17", 15), ("0x1F", 31)),
        *((".5", 0.5), ("1e3", 1000.0), ("-1.25", -1.25), ("1.", 1.0), (".inf", math.inf), ("-.Inf", -math.inf)),
        *(('"off"', "off"), ("'1'", "1"), ("!!str 12", "12"), ("[a, 1]", ["a", 1]), ("{a: {b: c}}", {"a": {"b": "c"}})),
    ],
)
def test_scalars_follow_yaml_1_2(here: Path, text: str, value: Any) -> None:
    got = read(f"key: {text}\n").value
    assert got == {"key": value}
    assert type(got["key"]) is type(value)


def test_not_a_number_is_one(here: Path) -> None:
    assert math.isnan(read("key: .nan").value["key"])


def test_every_key_knows_its_line(here: Path) -> None:
    document = read("# comment\na:\n  b:\n    c: 1\n  d: [x,\n      y]\ne:\n  >\n  text\n")
    assert document.value == {"a": {"b": {"c": 1}, "d": ["x", "y"]}, "e": "text\n"}
    lines = {dotted(path): line for path, line in document.lines.items()}
    assert lines == {"": 2, "a": 2, "a.b": 3, "a.b.c": 4, "a.d": 5, "a.d[0]": 5, "a.d[1]": 6, "e": 7}
    assert document.line(("a", "b", "missing", "x")) == 3


def test_an_alias_is_the_value_of_its_anchor(here: Path) -> None:
    assert read("a: &x {b: 1}\nc: *x\n").value == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", ["fleet.yaml:3: a: is given twice, first on line 1"]),
        ("h:\n  x: 1\n  x: 1\n  x: 1\n", [f"fleet.yaml:{n}: h.x: is given twice, first on line 2" for n in (3, 4)]),
        ('a: 1\n"a": 2\n', ["fleet.yaml:2: a: is given twice, first on line 1"]),
        ("1: a\n", ['fleet.yaml:1: 1: a key that is not text, put it in quotes: "1"']),
        ("true: a\n", ['fleet.yaml:1: true: a key that is not text, put it in quotes: "true"']),
        ("? [a]\n: b\n", ["fleet.yaml:1: a key that is a list or a mapping, expected text"]),
        ("a: &x [*x]\n", ["fleet.yaml:1: a[0]: an alias to a value that it is part of"]),
        (
            "a: !!python/object:os.system x\n",
            ["fleet.yaml:1: a: the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed"],
        ),
        ("a: !secret x\n", ["fleet.yaml:1: a: the tag '!secret' is not allowed"]),
        ("a: !!timestamp 2026-01-02\n", ["fleet.yaml:1: a: the tag 'tag:yaml.org,2002:timestamp' is not allowed"]),
        ("a: !!int x\n", ["fleet.yaml:1: a: got 'x', expected a value of the type !!int"]),
        ("a: " + "9" * 5000, ["fleet.yaml:1: a: a number of 5000 digits"]),
    ],
)
def test_what_could_be_read_otherwise_is_a_problem(here: Path, text: str, lines: list[str]) -> None:
    document = read(text)
    found = [f"fleet.yaml:{p.line}: {dotted(p.path) + ': ' if p.path else ''}{p.text}" for p in document.problems]
    assert found == lines


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "fleet.yaml: is empty (inventories/example.yaml shows what belongs here)"),
        (b"# nothing\n\n", "fleet.yaml: is empty (inventories/example.yaml shows what belongs here)"),
        (b"a: 1\nb: \xff\n", "fleet.yaml:2: byte 0xff is not UTF-8"),
        ("a: 1".encode("utf-16"), "fleet.yaml:1: byte 0xff is not UTF-8"),
        (b"a: 1\nb: \0\n", "fleet.yaml:2: character U+0000 is not allowed in YAML"),
        (b"a: \x1b[31m\n", "fleet.yaml:1: character U+001B is not allowed in YAML"),
        (b"a:\n\tb: 1\n", "fleet.yaml:2: a tab: YAML is indented with spaces"),
        (b"a: 1\n---\nb: 1\n", "fleet.yaml:2: a second document (---), expected one"),
        (b"a: *x\n", "fleet.yaml:1: not YAML: found undefined alias 'x'"),
        (b"a: b: c\n", "fleet.yaml:1: not YAML: mapping values are not allowed here"),
        (b"a: [" * 5000, "fleet.yaml: is nested too deeply"),
    ],
)
def test_what_is_not_yaml_is_one_line(here: Path, data: bytes, line: str) -> None:
    with pytest.raises(FleetError) as caught:
        read(data)
    assert str(caught.value) == line


def test_aliases_of_aliases_end(here: Path) -> None:
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(FleetError, match=r"^fleet\.yaml: holds more than 200000 values$"):
        read(laughs)


@pytest.mark.parametrize("value", ["a: 'x", "a: {", "a: [", "- a\nb: 1", "%YAML x\n---", 'a: "\\q"', "&", "a: @b", "`"])
def test_a_syntax_error_names_its_line(here: Path, value: str) -> None:
    with pytest.raises(FleetError, match=r"\Afleet\.yaml:\d+: not YAML: [^\n]+\Z"):
        read(value)


@UNTIMED
@hypothesis.given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_lines_without_control_characters(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        document = read_yaml(path)
        lines = tuple(dotted(problem.path) + problem.text for problem in document.problems)
    except FleetError as error:
        lines = error.lines
    assert all(line.isprintable() for line in lines)


@UNTIMED
@hypothesis.given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_what_pyyaml_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    # default_style: every scalar is quoted or tagged, because PyYAML leaves 1.2's `08` and its kin bare.
    path.write_text(yaml.safe_dump({"value": value}, default_style='"'), encoding="utf-8", newline="")
    assert read_yaml(path).value == {"value": value}


def test_a_missing_file_a_directory_and_an_unreadable_file_are_one_line(here: Path) -> None:
    (here / "folder").mkdir()
    (here / "loop").symlink_to("loop")
    for name, line in (
        ("none.yaml", "none.yaml: there is no such file"),
        ("folder", "folder: is a directory, expected a YAML file"),
        ("loop", "loop: cannot be read: Too many levels of symbolic links"),
    ):
        with pytest.raises(FleetError) as caught:
            read_yaml(here / name)
        assert str(caught.value) == line


def test_a_file_elsewhere_is_named_as_it_was_given(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "x\x1b.yaml"
    with pytest.raises(FleetError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{path.parent}/x\\x1b.yaml: there is no such file"
