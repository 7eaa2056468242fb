"""What earlier versions had: settings that are no more get a line, files that are no more go."""

from __future__ import annotations

import grp
import importlib
import os
import pwd
from pathlib import Path
from types import ModuleType

import pytest

from sparkfleet.settings import HostSettings, Measure
from sparkfleet.settings import retired as table
from sparkfleet.settings.retired import Retired
from sparkhost.base import converge, files
from sparkhost.base.files import File, RetiredFile
from sparkhost.base.resource import Context, Resource
from tasks.lib.wanted import resources_of
from tests.unit.fleet_files import Load, refused

USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
OLD = {
    "swap.margin_mb": Retired("0.2.0", "write swap.margin: 16GiB"),
    "firewall": Retired("0.3.0", "leave it out, the measure is gone"),
    "hosts.NAME.jump": Retired("0.2.0", "write ProxyJump into ssh_config"),
    "key_file": Retired("0.2.0", "write known_hosts"),
}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "defaults:\n  swap: {margin_mb: 3}\nhosts: {a: {}}",
            "2: defaults.swap.margin_mb: was retired in ",
        ),
        ("groups:\n  g:\n    swap: {margin_mb: 3}\nhosts: {a: {}}", "3: groups.g.swap.margin_mb: was retired in "),
        ("hosts:\n  a:\n    settings: {swap: {margin_mb: 3}}", "3: hosts.a.settings.swap.margin_mb: was retired in "),
        (
            "defaults: {firewall: {}}\nhosts: {a: {}}",
            "1: defaults.firewall: was retired in sparkfleet 0.3.0: ",
        ),
        ("hosts: {a: {jump: b}}", "1: hosts.a.jump: was retired in sparkfleet 0.2.0: write ProxyJump into ssh_config"),
        ("key_file: x\nhosts: {a: {}}", "1: key_file: was retired in sparkfleet 0.2.0: write known_hosts"),
        ("hosts: {a: {margin_mb: 3}}", "1: hosts.a.margin_mb: unknown key, "),
    ],
)
def test_a_retired_setting_is_a_line_that_says_what_to_write(
    text: str, line: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "RETIRED", OLD)
    (said,) = refused(load, text)
    assert line in said


def test_nothing_is_retired_and_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in table.RETIRED:
        name, _, setting = key.partition(".")
        field = HostSettings.model_fields.get(name)
        known = field.annotation if field else None
        assert not (isinstance(known, type) and issubclass(known, Measure) and setting in known.model_fields), key


def made_up(*resources: Resource) -> ModuleType:
    """A measure that an earlier version made more files for."""
    module = ModuleType("tasks.made_up")
    vars(module).update(RETIRED=resources, apply=lambda _: (File("/x", "x"),), remove=lambda _: ())
    return module


@pytest.mark.parametrize(("state", "expected"), [("present", 2), ("absent", 1), ("unmanaged", 0)])
def test_what_a_measure_once_owned_goes_with_it(state: str, expected: int) -> None:
    settings = HostSettings.model_validate({"swap": {"state": state}}).swap
    wanted = resources_of(made_up(RetiredFile("/old")), settings)
    assert len(wanted) == expected
    assert list(wanted[-1:]) == ([RetiredFile("/old")] if expected else [])


def test_a_retired_file_goes_only_where_it_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BACKUPS", tmp_path / "backup")
    ours, foreign, link, before = (tmp_path / name for name in ("ours", "foreign", "link", "before"))
    ours.write_text("# managed by sparkfleet (measure: made_up)\n")
    foreign.write_text("# the site's own\n")
    link.symlink_to(foreign)
    before.write_text("what the host had\n")
    File(str(before), "# managed by sparkfleet\n", 0o644, USER, GROUP).apply()
    paths = (ours, foreign, link, before, tmp_path / "never there")
    resources = [RetiredFile(str(path)) for path in paths]
    request = {"modules": [], "measures": [{"name": "made_up", "resources": [r.to_json() for r in resources]}]}
    planned = converge.run({"action": "plan", **request})["plan"]["made_up"]
    assert [change["what"] for change in planned["changes"]] == [str(ours), str(before)]
    applied = converge.run({"action": "apply", **request})["applied"]
    assert (applied["error"], len(applied["changes"])) == (None, 2)
    assert not ours.exists()
    assert foreign.read_text() == "# the site's own\n"
    assert link.is_symlink()
    assert before.read_text() == "what the host had\n"
    assert [change for resource in resources for change in resource.plan(Context())] == []


def test_no_measure_owns_what_one_has_retired() -> None:
    """Else each deploy would write it and take it away."""
    settings = HostSettings()
    owned: set[str] = set()
    old: set[str] = set()
    for name in HostSettings.model_fields:
        measure = importlib.import_module(f"tasks.{name}")
        owned |= {path for r in measure.apply(getattr(settings, name)) if (path := getattr(r, "path", ""))}
        old |= {path for r in getattr(measure, "RETIRED", ()) if (path := getattr(r, "path", ""))}
    assert owned
    assert not owned & old
