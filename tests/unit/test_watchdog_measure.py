"""From the fleet file to the host: what is written is what the watchdog takes, and a refusal is one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from sparkfleet.settings import Seconds, Size, WatchdogSettings
from sparkhost.base.files import File
from sparkhost.base.installed import Installed
from sparkhost.base.resource import Change, Context, Refused, from_json
from sparkhost.base.service import CheckedFile, Service
from sparkhost.base.shares import settled
from sparkhost.training_slice import slices
from sparkhost.watchdog import floors
from sparkhost.watchdog.config import BadConfig, load, parse, warnings
from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.floors import FloorsFit
from sparkhost.watchdog.model import GIB, Ledger, Look, Samples, Wait
from tasks import watchdog as measure

ROOT = Path(__file__).resolve().parents[2]
SPARK = 120 * GIB


def test_what_the_fleet_file_says_is_what_the_watchdog_reads() -> None:
    settings = WatchdogSettings(
        kill_below=Size.parse("5GiB"),
        near=Seconds.parse("20ms"),
        protect=["a.service"],
        prefer=["b-*.scope"],
        gpu_every=Seconds(2),
    )
    read = parse(settled(measure.config(settings), lambda: SPARK), "f", SPARK)
    assert (read.policy.term_below, read.policy.kill_below, read.policy.near) == (16 * GIB, 5 * GIB, 0.02)
    assert (read.preferences.protect, read.preferences.prefer) == (("a.service",), ("b-*.scope",))
    assert read.gpu_stale_after == 10


def test_the_serving_profile_leaves_a_host_alone_that_lives_at_2_gib() -> None:
    policy = parse(measure.config(WatchdogSettings(profile="serving")), "f", SPARK).policy
    assert isinstance(decide(Samples(Look(1, SPARK, 2 * GIB, GIB), ledger=Ledger(time=1.0)), policy), Wait)


@pytest.mark.parametrize(
    "values",
    [
        {"kill_below": Size.parse("16GiB"), "term_below": Size.parse("16GiB")},
        {"kill_below": "14%"},
        {"kill_below": "8%", "term_below": "8%"},
        {"kill_below": "auto%"},
        {"term_below": "100%"},
        {"profile": "serving", "kill_below": Size.parse("2GiB")},
        {"kill_below": Size(0)},
        {"kill_below": Size(0), "term_below": Size(0)},
        {"near": Seconds(1)},
        {"far": Seconds(60)},
        {"recovery_wait": Seconds(0)},
        {"fastest_fill": Size(1)},
        {"protect": ["*"]},
        {"prefer": ["-x"]},
        {"prefer": ["*.scope"]},
    ],
)
def test_what_does_not_go_together_is_refused_before_any_host_sees_it(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WatchdogSettings.model_validate(values)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("term_below = 16", "f: term_below: got 16, expected a size such as"),
        ('term_below = "16GB"', "f: term_below: got '16GB', expected a size"),
        ('kill_below = "20GiB"', "f: kill_below: is"),
        ('term_below = "90GiB"', "more than half of this host's"),
        ("near = 1", "f: near: is 1.0, expected 0.005 to 0.05 seconds"),
        ("grace = true", "f: grace: got True, expected a number of seconds"),
        ("protect = [1]", "f: protect: got [1], expected a list"),
        ("x = 1", "f: x: unknown key"),
        ('"a\\nb" = 1', "f: a\\nb: unknown key"),
        ("term_below =", "f: is no TOML"),
        ('gpu_memory = "no"', "expected auto, always or never"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_key(text: str, says: str) -> None:
    with pytest.raises(BadConfig) as refused:
        parse(text, "f", SPARK)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "watchdog.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(BadConfig, match="others than root"):
        load(path, SPARK)
    with pytest.raises(BadConfig, match="No such file"):
        load(tmp_path / "none", SPARK)


def test_a_cap_that_no_job_can_reach_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "training.slice").mkdir()
    (tmp_path / "training.slice" / "memory.max").write_text(f"{110 * GIB}\n")
    config = parse("", "f", SPARK)
    assert len(warnings(config, SPARK, tmp_path)) == 1
    (tmp_path / "training.slice" / "memory.max").write_text(f"{100 * GIB}\n")
    assert warnings(config, SPARK, tmp_path) == []
    (tmp_path / "training.slice" / "memory.max").write_text("max\n")
    assert warnings(config, SPARK, tmp_path) == []


UNITS = [
    "sparkfleet-watchdog.service",
    "sparkfleet-gpu-sampler.service",
    "sparkfleet-observer.service",
    "sparkfleet.slice",
]


@pytest.mark.parametrize("name", UNITS)
def test_every_setting_that_hardens_a_unit_says_why(name: str) -> None:
    """A comment stands above each, or above the group of lines that it explains."""
    (content,) = (r.content for r in measure.apply(WatchdogSettings()) if isinstance(r, File) and r.path.endswith(name))
    hardening = re.compile(r"(Protect|Private|Restrict|Lock|NoNew|Capability|MemoryDeny|Device|OOM|Memory|SystemCall)")
    explained = False
    for line in content.splitlines():
        if line.startswith("#"):
            explained = True
        elif not line or line.startswith("["):
            explained = False
        elif hardening.match(line):
            assert explained, f"{name}: nothing says why: {line}"


def test_units_agree_with_what_the_settings_switch() -> None:
    def unit(settings: WatchdogSettings) -> str:
        found = measure.apply(settings)
        return next(r.content for r in found if isinstance(r, File) and r.path.endswith("sparkfleet-watchdog.service"))

    assert "ProtectKernelTunables=yes" in unit(WatchdogSettings())
    assert "ProtectKernelTunables" not in unit(WatchdogSettings(drop_page_cache=True))
    assert "ReadWritePaths" not in unit(WatchdogSettings(textfile=None))
    assert "run --dry-run\n" in unit(WatchdogSettings(dry_run=True))
    assert "ProtectControlGroups=yes" not in unit(WatchdogSettings())


def test_all_resources_travel_as_json_and_the_services_come_last() -> None:
    for made in (measure.apply(WatchdogSettings()), measure.remove(WatchdogSettings())):
        assert [from_json(resource.to_json()).kind for resource in made] == [resource.kind for resource in made]
    kinds = [resource.kind for resource in measure.apply(WatchdogSettings())]
    assert kinds.index("installed") < kinds.index("checked_file") < kinds.index("service")


def test_the_installed_program_runs_on_its_own(tmp_path: Path) -> None:
    """With nothing on its path but what is installed, as on a host."""
    (installed,) = (r for r in measure.apply(WatchdogSettings()) if isinstance(r, Installed))
    for name, source in installed.modules.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    for module in ("watchdog.cli", "watchdog.why", "sampler.main", "observer.main"):
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from sparkhost.{module} import main; main(['--help'])"
        )
        subprocess.run([sys.executable, "-IS", "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_good_file_is_not_replaced_by_one_that_the_program_refuses(tmp_path: Path) -> None:
    checker = tmp_path / "check"
    checker.write_text('#!/bin/sh\nread -r line\n[ "$line" = good ] || { echo "no: $line" >&2; exit 2; }\n')
    checker.chmod(0o755)
    path = tmp_path / "file"
    path.write_text("good # managed by sparkfleet\n")
    bad = CheckedFile(str(path), "bad\n", check=(str(checker),))
    with pytest.raises(Refused, match="is not replaced: no: bad"):
        bad.plan(Context())
    with pytest.raises(Refused):
        bad.apply()
    assert path.read_text() == "good # managed by sparkfleet\n"
    good = CheckedFile(str(path), "good\n", check=(str(checker),))
    assert [change.summary for change in good.plan(Context())] == ["rewrite"]
    # The program itself is to be replaced in the same run: the old one is not asked.
    newer = Context(pending=[Change(str(checker), "rewrite")])
    assert bad.plan(newer)
    # The first deploy of all: the program comes with it.
    assert CheckedFile(str(path), "bad\n", check=(str(tmp_path / "none"),)).plan(Context())


def test_a_change_of_the_configuration_alone_is_a_reload() -> None:
    watchdog = next(r for r in measure.apply(WatchdogSettings()) if isinstance(r, Service))
    assert list(watchdog.reload_for) == [measure.CONFIG]
    assert measure.CONFIG not in watchdog.files


def test_thresholds_that_this_machine_cannot_hold_are_refused_before_anything_is_installed() -> None:
    first = measure.apply(WatchdogSettings(term_below=Size.parse("8000GiB")))[0]
    assert first.is_basis
    with pytest.raises(Refused, match="term_below is 8192000 MiB, more than half of this host's"):
        first.plan(Context())
    assert FloorsFit(2**20).plan(Context()) == []


def test_a_watchdog_that_would_begin_with_a_kill_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, state = tmp_path / "meminfo", tmp_path / "state.json"
    memory.write_text("MemTotal: 1048576 kB\nMemAvailable: 102400 kB\n")
    monkeypatch.setattr(slices, "MEMINFO", memory)
    monkeypatch.setattr(floors, "STATE", state)
    wanted = FloorsFit(256 * 2**20)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    good = {"dry_run": False, "boottime": now, "policy": {"term_below": 2**28}}
    for said in ("", "nonsense", json.dumps({**good, "dry_run": True}), json.dumps({**good, "boottime": now - 600})):
        state.write_text(said)
        with pytest.raises(Refused, match=r"MemAvailable is 100 MiB, below term_below \(256 MiB\): the watchdog would"):
            wanted.plan(Context())
    assert FloorsFit(256 * 2**20, dry_run=True).plan(Context()) == []
    assert FloorsFit(64 * 2**20).plan(Context()) == []
    # The one that runs acts there already: what comes is not of this deploy's making.
    state.write_text(json.dumps(good))
    assert wanted.plan(Context()) == []


def test_what_was_refused_is_not_started(tmp_path: Path) -> None:
    service = Service("nonsense.service", [], only_with=str(tmp_path / "none"))
    assert service.plan(Context()) == []
