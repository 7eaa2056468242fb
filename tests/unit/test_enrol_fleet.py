"""Writing a host into a fleet file: the rest of the file stays as it is, byte for byte."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.enrol import fleet_file
from sparkfleet.enrol.fleet_text import inserted, scalar
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import FleetError, load_fleet

ENTRY: dict[str, Any] = {"address": "10.0.0.9", "port": 2222, "user": "admin"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


CASES = {
    "after the last host": (
        "hosts:\n  a:\n    address: 10.0.0.1\n",
        "hosts:\n  a:\n    address: 10.0.0.1\n  new:\n    address: 10.0.0.9\n    port: 2222\n    user: admin\n",
    ),
    "a host that is only a name": (
        "hosts:\n  a:  # by ssh_config\n",
        "hosts:\n  a:  # by ssh_config\n  new:\n    address: 10.0.0.9\n    port: 2222\n    user: admin\n",
    ),
    "no newline at the end": (
        "hosts:\n  a:",
        "hosts:\n  a:\n  new:\n    address: 10.0.0.9\n    port: 2222\n    user: admin\n",
    ),
    "comments of the last host stay with it, those of what follows too": (
        "hosts:\n  a:\n    port: 22  # why\n    # user: x\n  # b is gone\n\n# defaults\ndefaults: {}\n",
        "hosts:\n  a:\n    port: 22  # why\n    # user: x\n  # b is gone\n"
        "  new:\n    address: 10.0.0.9\n    port: 2222\n    user: admin\n\n# defaults\ndefaults: {}\n",
    ),
    "blank lines between hosts, and another indent": (
        "hosts:\n    a:\n        port: 1\n\n    # second\n    b:\n        port: 2\ngroups: {}\n",
        "hosts:\n    a:\n        port: 1\n\n    # second\n    b:\n        port: 2\n"
        "\n    new:\n        address: 10.0.0.9\n        port: 2222\n        user: admin\ngroups: {}\n",
    ),
    "an empty key": (
        "hosts:  # none yet\nversion: 1\n",
        "hosts:  # none yet\n  new:\n    address: 10.0.0.9\n    port: 2222\n    user: admin\nversion: 1\n",
    ),
    "no hosts at all": (
        "version: 1\n",
        "version: 1\n\nhosts:\n  new:\n    address: 10.0.0.9\n    port: 2222\n    user: admin\n",
    ),
    "braces": (
        "hosts: {a: {port: 22}}  # short\n",
        "hosts: {a: {port: 22}, new: {address: 10.0.0.9, port: 2222, user: admin}}  # short\n",
    ),
    "empty braces": ("hosts: {}\n", "hosts: {new: {address: 10.0.0.9, port: 2222, user: admin}}\n"),
    "a comma before the brace": (
        "hosts: {\n  a: {port: 22},\n}\n",
        "hosts: {\n  a: {port: 22}, new: {address: 10.0.0.9, port: 2222, user: admin}\n}\n",
    ),
    "a byte order mark and Windows' line ends": (
        "\ufeffhosts:\r\n  a:\r\n    port: 22\r\n",
        "\ufeffhosts:\r\n  a:\r\n    port: 22\r\n"
        "  new:\r\n    address: 10.0.0.9\r\n    port: 2222\r\n    user: admin\r\n",
    ),
    "a nested end": (
        "hosts:\n  a:\n    settings:\n      uv:\n        config:\n          x: [1,\n            2]\n...\n",
        "hosts:\n  a:\n    settings:\n      uv:\n        config:\n          x: [1,\n            2]\n"
        "  new:\n    address: 10.0.0.9\n    port: 2222\n    user: admin\n...\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_only_the_host_is_added(case: str) -> None:
    before, after = CASES[case]
    assert inserted(before, "new", ENTRY) == after


@pytest.mark.parametrize(
    "text",
    [
        "hosts: {a: {port: 22} # why\n  }\n",
        "{hosts: [a]}\n",
        "- hosts\n",
        "base: &b\n  a:\nhosts: *b\n",
        "hosts:\n  new:\n",
    ],
)
def test_what_cannot_be_added_to_is_left_alone(text: str) -> None:
    assert inserted(text, "new", ENTRY) is None


@given(
    hosts=st.lists(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), min_size=1, max_size=4, unique=True),
    indent=st.integers(1, 6),
    gaps=st.lists(st.sampled_from(["", "\n", "# note\n", "\n# note\n", "          # deep\n"]), min_size=4, max_size=4),
    tail=st.sampled_from(["", "groups: {}\n", "\n\n# end\n", "...\n"]),
)
def test_lines_are_only_ever_added(hosts: list[str], indent: int, gaps: list[str], tail: str) -> None:
    margin = " " * indent
    body = "".join(
        f"{margin}{scalar(host)}:\n{margin * 2}port: 22\n{gap}" for host, gap in zip(hosts, gaps, strict=False)
    )
    before = f"# head\nhosts:\n{body}{tail}"
    after = inserted(before, "sparky", {})
    assert after is not None
    left = iter(after.splitlines())
    assert all(line in left for line in before.splitlines()), "each old line is there, in order"
    assert list(yaml.safe_load(after)["hosts"]) == [*hosts, "sparky"]


@pytest.mark.parametrize(
    "text", ["on", "no", "1", "007", "1e3", "fe80::1", "::1", "10.0.0.1", "a: b", "~", "~/x y", "1:30"]
)
def test_text_stays_text_for_every_reader(text: str) -> None:
    assert yaml.safe_load(f"x: {scalar(text)}") == {"x": text}
    assert yaml.safe_load(f"{scalar(text)}: 1") == {text: 1}


def test_a_new_file_has_its_pins_beside_it(tmp_path: Path) -> None:
    draft = fleet_file.draft(tmp_path / "lab.yaml", "spark1", ENTRY)
    assert not (tmp_path / "lab.yaml").exists()
    assert draft.fleet.known_hosts == tmp_path / "lab.known_hosts"
    fleet_file.write(draft)
    fleet = load_fleet(tmp_path / "lab.yaml")
    assert [(host.name, host.address, host.port) for host in fleet.hosts] == [("spark1", "10.0.0.9", 2222)]
    assert names(tmp_path) == ["lab.yaml"]


def test_mode_and_link_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "fleet.yaml"
    real.write_text("hosts:\n  a:\n")
    real.chmod(0o640)
    (tmp_path / "fleet.yaml").symlink_to(real)
    fleet_file.write(fleet_file.draft(tmp_path / "fleet.yaml", "b", {"address": "b.example.com"}))
    assert (tmp_path / "fleet.yaml").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_text() == "hosts:\n  a:\n  b:\n    address: b.example.com\n"
    assert names(real.parent) == ["fleet.yaml"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"port": 70000}, "hosts.b.port: got 70000, expected a port from 1 to 65535"),
        ({"groups": ["nope"]}, "hosts.b.groups[0]: got 'nope', expected a group that is declared under groups"),
        ({"address": "10.0.0.1"}, "hosts.b.address: '10.0.0.1' port 22 is already the host a"),
        ({"user": "-oProxyCommand=x"}, "hosts.b.user: got '-oProxyCommand=x', expected a user name"),
        ({"address": "-oProxyCommand=x"}, "hosts.b.address: got '-oProxyCommand=x', expected a host name"),
    ],
)
def test_mistakes_are_those_of_the_file_and_nothing_is_written(
    entry: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "hosts:\n  a:\n    address: 10.0.0.1\n"
    Path("fleet.yaml").write_text(text)
    with pytest.raises(FleetError, match=r"^fleet\.yaml: hosts\.b\.") as caught:  # no line: the file has none of it
        fleet_file.draft(Path("fleet.yaml"), "b", entry)
    assert expected in str(caught.value)
    assert names(tmp_path) == ["fleet.yaml"]
    assert Path("fleet.yaml").read_text() == text


def test_what_somebody_wrote_meanwhile_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("hosts:\n  a:\n")
    draft = fleet_file.draft(path, "b", {})
    path.write_text("hosts:\n  a:\n  c:\n")
    with pytest.raises(CommandFailed, match="changed by somebody meanwhile"):
        fleet_file.write(draft)
    assert path.read_text() == "hosts:\n  a:\n  c:\n"


def test_interrupted_before_the_last_step_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("hosts:\n  a:\n")
    draft = fleet_file.draft(path, "b", {})

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fleet_file.write(draft)
    assert path.read_text() == "hosts:\n  a:\n"
    assert names(tmp_path) == ["fleet.yaml"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="nothing can be written to its folder: No such file") as caught:
        fleet_file.draft(tmp_path / "none" / "fleet.yaml", "b", {})
    assert caught.value.code == ExitCode.BAD_CONFIGURATION
