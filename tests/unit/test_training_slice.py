"""What the measure asks for, what it refuses and warns of, and how it merges what others have written."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sparkfleet.settings import HostSettings, Size, TrainingSliceSettings
from sparkhost.base import converge, systemd
from sparkhost.base.files import File
from sparkhost.base.installed import Installed
from sparkhost.base.resource import Change, Context, Refused, from_json
from sparkhost.base.shares import settled
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.launcher import config, helper
from sparkhost.launcher.unit import END, STUB
from sparkhost.training_slice import caps, people, people_keys, slices
from sparkhost.training_slice.caps import CapInForce
from sparkhost.training_slice.people import TrainingPeople
from sparkhost.training_slice.people_keys import as_user, with_keys
from sparkhost.training_slice.slices import CapFile, Exceptions, NoJobs, SliceFits, members
from tasks import training_slice as measure
from tasks import watchdog
from tasks.lib.wanted import requests

GIB = 2**30
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann@example.com"
ROOT = Path(__file__).resolve().parents[2]


def files(settings: TrainingSliceSettings) -> dict[str, str]:
    """Path -> content, as on a host of 120 GiB."""
    return {r.path: settled(r.content, lambda: 120 * GIB) for r in measure.apply(settings) if isinstance(r, File)}


def test_sizes_reach_units_and_the_launcher_in_bytes() -> None:
    found = files(TrainingSliceSettings(memory_max=Size(90 * GIB), cpu_weight=50, memlock=Size(GIB)))
    assert f"MemoryMax={90 * GIB}\n" in found[measure.SLICE_FILE]
    assert "CPUWeight=50\n" in found[measure.SLICE_FILE]
    assert "IOWeight" not in found[measure.SLICE_FILE]
    assert f"MemoryMax={8 * GIB}\n" in found[measure.CAP]
    assert "MemoryMax" not in found[measure.SERVING_FILE]
    assert measure.SUM not in found
    read = config.parse(found[measure.CONFIG])
    assert (read.memory_max, read.memlock, read.group, read.tasks_max) == (90 * GIB, GIB, "training", 16384)


def test_the_sum_of_sessions_is_capped_where_it_is_asked_for() -> None:
    found = files(TrainingSliceSettings(sessions_memory_max=Size(64 * GIB)))
    assert f"MemoryMax={64 * GIB}\n" in found[measure.SUM]


def test_the_programs_are_where_the_units_and_the_stub_look_for_them() -> None:
    found = files(TrainingSliceSettings())
    assert {STUB, END} <= set(found)
    assert "ExecStart=/opt/sparkfleet/bin/spark-helper\n" in found[f"{UNIT_DIRECTORY}/sparkfleet-launcher.service"]
    (installed,) = (r for r in measure.apply(TrainingSliceSettings()) if isinstance(r, Installed))
    for path in measure.PROGRAMS:
        lines = found[path].splitlines()
        assert lines[0] in ("#!/usr/bin/python3 -IS", "#!/bin/sh")
        assert "managed by sparkfleet" in lines[1]
        for module in re.findall("^from ([a-z.]+) import", found[path], re.MULTILINE):
            assert f"{module.replace('.', '/')}.py" in installed.modules
            assert f'"{installed.home()}/current"' in found[path]
    assert f"{installed.home()}/current" == helper.CURRENT
    assert str(config.PATH) == measure.CONFIG


def test_removal_is_refused_while_jobs_run(host: Path) -> None:
    NoJobs("training.slice").plan(Context())
    cgroup(host, "training.slice/spark-job-1001-0123abcd.service", 1)
    with pytest.raises(Refused, match=r"1 jobs run in training\.slice: spark-job-1001-0123abcd\.service: wait"):
        NoJobs("training.slice").plan(Context())


def test_an_exception_has_the_name_of_what_it_replaces() -> None:
    resources = measure.apply(TrainingSliceSettings())
    (exceptions,) = (r for r in resources if isinstance(r, Exceptions))
    assert Path(measure.CAP).name == exceptions.name
    order = [getattr(r, "path", r.kind) for r in resources]
    assert order.index("cap_exceptions") < order.index(measure.CAP)


@pytest.mark.parametrize("make", [measure.apply, measure.remove])
def test_resources_survive_the_journey(make: type) -> None:
    for resource in make(TrainingSliceSettings(users={"ann": [KEY]}, members=["bob"])):
        assert from_json(json.loads(json.dumps(resource.to_json()))) == resource


def test_every_hardening_line_has_its_reason_above() -> None:
    for path in (ROOT / "files" / "training_slice").iterdir():
        if path.suffix in (".service", ".slice", ".socket", ".conf"):
            section, before = "", ""
            for line in path.read_text().splitlines():
                if line.startswith("["):
                    section = line
                if re.match(r"[A-Z][A-Za-z]+=", line) and section not in ("[Unit]", "[Install]"):
                    key = line.partition("=")[0]
                    plain = {"ExecStart", "ListenSequentialPacket", "RuntimeDirectoryPreserve"}
                    assert key in plain or before.startswith("#"), f"{path.name}: {line}"
                before = line


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"memory_max": "1MiB"}, "expected 64MiB at least"),
        ({"session_memory_max": "8GiB", "sessions_memory_max": "1GiB"}, "is less than session_memory_max 8GiB"),
        ({"job_tasks_max": 50000}, "is more than tasks_max 32768"),
        ({"admins": ["ann"], "members": ["ann"]}, "ann is a training user as well"),
        ({"users": {"root": []}}, "expected a user name"),
        ({"users": {"-x": []}}, "expected a user name"),
        ({"users": {"ann": [f'command="x" {KEY}']}}, "expected a public key"),
        ({"users": {"ann": [f"{KEY}\n{KEY}"]}}, "expected a public key"),
        ({"group": "root"}, "expected the name of a Unix group"),
        ({"cpu_weight": True}, "expected a weight"),
        ({"preflight": "no"}, "'warn', 'refuse' or 'off'"),
    ],
)
def test_mistakes_in_the_settings(values: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        TrainingSliceSettings.model_validate(values)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of 120 GiB, of which 10 are in use."""
    monkeypatch.setattr(slices, "CGROUPS", tmp_path / "cg")
    monkeypatch.setattr(slices, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(slices, "UNITS", tmp_path / "units")
    (tmp_path / "meminfo").write_text(f"MemTotal: {120 * 2**20} kB\nMemAvailable: {110 * 2**20} kB\n")
    return tmp_path


def cgroup(host: Path, name: str, anon: int) -> None:
    (host / "cg" / name).mkdir(parents=True)
    (host / "cg" / name / "memory.stat").write_text(f"anon {anon}\nfile {50 * GIB}\nshmem 0\n")


def test_a_cap_that_never_fits_is_refused_and_one_that_hardly_does_warned_of(host: Path) -> None:
    with pytest.raises(Refused, match=r"memory_max is 105\.0 GiB, but this host has 120\.0 GiB .* to 104GiB at most"):
        SliceFits(105 * GIB, 16 * GIB, "training.slice").plan(Context())
    with pytest.raises(Refused, match=r"set training_slice\.reserve and training_slice\.memory_max for a host of this"):
        SliceFits(100 * GIB, 130 * GIB, "training.slice").plan(Context())
    context = Context()
    assert SliceFits(100 * GIB, 16 * GIB, "training.slice").plan(context) == []
    assert len(context.warnings) == 1
    assert "100.0 GiB + 16.0 GiB that are kept free + 10.0 GiB" in context.warnings[0]
    assert "94GiB would fit" in context.warnings[0]
    cgroup(host, "training.slice", 9 * GIB)  # what jobs hold now is not the system's
    context = Context()
    SliceFits(100 * GIB, 16 * GIB, "training.slice").plan(context)
    assert context.warnings == []
    context = Context()
    SliceFits(80 * GIB, 16 * GIB, "training.slice").plan(context)
    assert context.warnings == []


def test_a_cap_is_not_put_in_force_over_somebodys_head(host: Path) -> None:
    drop_in = "50-sparkfleet-training.conf"
    cap = CapFile(
        str(host / "cap"), "x", slices="user.slice/user-*.slice", memory_max=8 * GIB, setting="s", exception=drop_in
    )
    cgroup(host, "user.slice/user-1.slice", 8 * GIB)
    assert [change.summary for change in cap.plan(Context())] == ["create"]
    cgroup(host, "user.slice/user-424242.slice", 9 * GIB)
    with pytest.raises(Refused, match=r"user-424242\.slice holds 9\.0 GiB, more than s 8\.0 GiB"):
        cap.plan(Context())
    exception = host / "units" / "user-424242.slice.d" / drop_in
    assert cap.plan(Context(pending=[Change(str(exception), "create")]))  # a dry run has not written it
    exception.parent.mkdir(parents=True)
    exception.touch()
    assert cap.plan(Context())


def test_admins_are_excepted_and_stale_exceptions_go(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "4711")
    stale = host / "units" / "user-999999.slice.d" / "n.conf"
    stale.parent.mkdir(parents=True)
    stale.write_text("# managed by sparkfleet\n")
    found = {c.what: c.summary for c in Exceptions("n.conf", "x", ["no-such-group"], ["daemon"], "g").plan(Context())}
    names = {str(host / "units" / f"user-{uid}.slice.d" / "n.conf"): "create" for uid in (0, 1, 4711)}
    assert found == names | {str(stale): "remove"}
    none = Exceptions("n.conf", "", [], [], "g", wanted=False)
    assert [change.what for change in none.plan(Context())] == [str(stale)]


def test_an_admin_who_is_not_known_costs_no_other_the_exception(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a place that cannot be written to. What is there may be the unknown one's, and stays."""
    monkeypatch.delenv("SUDO_UID", raising=False)
    stays = host / "units" / "user-999999.slice.d" / "n.conf"
    stays.parent.mkdir(parents=True)
    stays.write_text("# managed by sparkfleet\n")
    (host / "units" / "user-0.slice.d").write_text("in the way")
    exceptions = Exceptions("n.conf", "# managed by sparkfleet\n", [], ["daemon", "nobody-of-this-name"], "g")
    done = converge.apply_measure([exceptions])
    written = host / "units" / "user-1.slice.d" / "n.conf"
    assert [change["what"] for change in done["changes"]] == [str(written)]
    assert written.exists()
    assert stays.exists()
    assert done["refused"] == ["training_slice.admins: no user nobody-of-this-name on this host: correct the name"]
    assert f"{host}/units/user-0.slice.d/n.conf: Not a directory" in done["error"]


def test_an_admin_among_training_users_is_named(host: Path) -> None:
    context = Context()
    Exceptions("n.conf", "x", [], ["daemon"], "daemon").plan(context)
    assert context.warnings == ["daemon: in the group daemon and an admin: not capped"]
    assert "daemon" in members("daemon")  # by the first group of its user


@settings(deadline=None)  # other tests keep the machine busy
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=60), st.lists(st.just(KEY), max_size=2)
)
def test_keys_come_and_go_and_the_users_own_stay(text: str, keys: list[str]) -> None:
    once = with_keys(text, keys)
    assert with_keys(once, keys) == once
    assert once.count(KEY) == len(keys)
    assert with_keys(once, []) == text


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_keys_are_written_as_the_user_and_no_link_is_followed_by_root() -> None:
    secret = Path("/tmp") / f"sparkfleet-test-{os.getpid()}"
    home = Path("/tmp") / f"sparkfleet-home-{os.getpid()}"
    home.mkdir(mode=0o755)
    try:
        secret.write_text("root's own")
        secret.chmod(0o600)
        os.chown(home, 1, 1)
        entry = pwd.struct_passwd(("daemon", "x", 1, 1, "", str(home), "/bin/sh"))
        assert as_user(entry, people_keys.READ_KEYS) == ""
        as_user(entry, people_keys.WRITE_KEYS, f"{KEY}\n")
        path = home / ".ssh" / "authorized_keys"
        assert (path.read_text(), path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (f"{KEY}\n", 1, 0o600)
        path.unlink()
        path.symlink_to(secret)
        as_user(entry, people_keys.WRITE_KEYS, "new\n")
        assert secret.read_text() == "root's own"
        assert not path.is_symlink()
    finally:
        subprocess.run(["rm", "-rf", str(home), str(secret)], check=True)


def test_unknown_members_and_foreign_groups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "RECORD", tmp_path / "record")

    def refused(*wanted: Any) -> str:
        context = Context()
        assert TrainingPeople(*wanted).plan(context) == []
        [line] = context.troubles.refused
        return line

    assert "no user no-such-user on this host" in refused("daemon", {}, ["no-such-user"])
    changes = TrainingPeople("no-such-group", {"no-such-user": [KEY]}, ["daemon"]).plan
    monkeypatch.setattr(people, "GROUP_FILE", tmp_path / "group")
    (tmp_path / "group").write_text("no-such-group:x:1:\n")
    assert [(c.what, c.summary) for c in changes(Context())] == [
        ("group no-such-group", "create"),
        ("user no-such-user", "create, in the group no-such-group, with 1 keys"),
        ("user daemon", "add to the group no-such-group"),
    ]
    (tmp_path / "group").write_text("")
    assert "comes from a directory service: add bin there" in refused("daemon", {}, ["bin"])
    assert "root is root" in refused("root", {}, ["root"])


def test_rights_are_taken_also_where_the_rest_of_the_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none are given there: nothing would cap who is let in. gpasswd is a double, as in the next test."""
    (tmp_path / "gpasswd").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    (tmp_path / "gpasswd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(people, "RECORD", tmp_path / "record")
    monkeypatch.setattr(people, "GROUP_FILE", tmp_path / "group")
    (tmp_path / "group").write_text("daemon:x:1:\n")
    people.Record(members=["daemon"]).save()
    settings = TrainingSliceSettings(memory_max=Size(900 * 2**40), reserve=Size(GIB), group="daemon", members=["bin"])
    resources = measure.apply(settings)
    plan = converge.plan_measure(resources, Context())
    assert [change["summary"] for change in plan["changes"]] == ["take out of the group daemon"]
    assert "memory_max is" in plan["refused"][0]
    monkeypatch.setattr(slices, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemTotal: {2**60} kB\nMemAvailable: {2**60} kB\n")
    context = Context()
    summaries = [change.summary for change in resources[0].plan(context)]
    context.pending += resources[0].plan(context)
    summaries += [change.summary for change in resources[2].plan(context)]
    assert summaries == ["take out of the group daemon", "add to the group daemon"]


def test_an_account_of_ours_is_locked_with_the_measures_end_and_unlocked_with_its_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`usermod` and its like are doubles on the PATH: no test may change the accounts of the machine that runs it."""
    for tool in ("usermod", "gpasswd"):
        (tmp_path / tool).write_text(f'#!/bin/sh\necho {tool} "$@" >>{tmp_path}/calls\n')
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(people, "RECORD", tmp_path / "record")
    monkeypatch.setattr(people, "SHADOW", tmp_path / "shadow")
    (tmp_path / "shadow").write_text("daemon:*:19000:0:99999:7::20500:\nbin:*:19000:0:99999:7:::\n")
    people.Record(created=["daemon", "no-such-user"]).save()
    leave = TrainingPeople("daemon", {}, [], wanted=False)
    (change,) = leave.plan(Context())
    assert (change.what, change.summary.partition(":")[0]) == ("user daemon", "lock")
    leave.apply()
    assert leave.plan(Context()) == []
    assert people.read_record().locked == {"daemon": "20500"}
    back = TrainingPeople("daemon", {"daemon": []}, [])
    (change,) = back.plan(Context())
    assert change.summary.startswith("unlock")
    back.apply()
    assert back.plan(Context()) == []
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["usermod --expiredate 1 -- daemon", "usermod --expiredate 20500 -- daemon"]
    assert people.expires("bin") == people.expires("nobody-there") == ""


def held_by(monkeypatch: pytest.MonkeyPatch, value: int, *drop_ins: str) -> None:
    """PID 1 holds this MemoryMax, and these drop-ins, for every slice."""
    found = {"MemoryMax": str(value), "DropInPaths": " ".join(drop_ins), "NeedDaemonReload": "no"}
    monkeypatch.setattr(caps, "show", lambda *_: found)


def test_a_foreign_cap_is_not_tried_to_mend_and_one_until_the_next_boot_is(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_in = host / "50-cap.conf"
    drop_in.touch()
    cgroup(host, "user.slice/user-1001.slice", 1)
    (host / "cg" / "user.slice" / "user-1001.slice" / "memory.max").write_text(f"{9 * GIB}\n")
    cap = CapInForce("user.slice/user-*.slice", 8 * GIB, str(drop_in), "50-cap.conf")

    def planned() -> int:
        return len(cap.plan(Context()))

    held_by(monkeypatch, 9 * GIB, "/usr/lib/systemd/system/user-.slice.d/10-defaults.conf", str(drop_in))
    assert planned() == 1  # the kernel's is neither
    held_by(monkeypatch, 9 * GIB, str(drop_in), "/etc/systemd/system/user-1001.slice.d/zz.conf")
    assert planned() == 0  # `Holds` refuses it
    held_by(monkeypatch, 9 * GIB, "/run/systemd/system.control/user-1001.slice.d/50-MemoryMax.conf", str(drop_in))
    assert planned() == 1
    held_by(monkeypatch, 8 * GIB, str(drop_in))
    (host / "cg" / "user.slice" / "user-1001.slice" / "memory.max").write_text(f"{8 * GIB}\n")
    assert planned() == 0


def test_one_users_slice_costs_no_other_its_cap(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says something that nobody foresaw of one of them. PID 1 is a double: there is none in a test."""
    drop_in = host / "50-cap.conf"
    drop_in.touch()
    started: list[str] = []
    held_by(monkeypatch, 8 * GIB, str(drop_in))
    monkeypatch.setattr(systemd, "daemon_reload", lambda: None)

    def start_below(name: str) -> None:
        started.append(name)
        (host / "cg" / "user.slice" / name / "memory.max").write_text(f"{8 * GIB}\n")

    monkeypatch.setattr(caps, "start_below", start_below)
    for uid, said in ((1001, "max"), (1002, "a lot"), (1003, "max")):
        cgroup(host, f"user.slice/user-{uid}.slice", 1)
        (host / "cg" / "user.slice" / f"user-{uid}.slice" / "memory.max").write_text(f"{said}\n")
    done = converge.apply_measure([CapInForce("user.slice/user-*.slice", 8 * GIB, str(drop_in))])
    assert started == ["user-1001.slice", "user-1003.slice"]
    assert [change["what"] for change in done["changes"]] == started
    assert done["error"].startswith("user-1002.slice: a mistake of ours: ValueError")


def test_who_keeps_a_job_running_does_not_put_off_the_own_lock(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal is refused, the account is locked, and nothing of the job's is touched."""
    (tmp_path / "usermod").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    (tmp_path / "usermod").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(people, "RECORD", tmp_path / "record")
    people.Record(created=["daemon"]).save()
    cgroup(host, "training.slice/spark-job-1-0123abcd.service", 1)
    absent = measure.remove(TrainingSliceSettings(group="daemon"))
    planned = converge.plan_measure(absent, Context())
    done = converge.apply_measure(absent)
    assert [change["what"] for change in planned["changes"]] == ["user daemon"]
    assert done["changes"] == planned["changes"]
    assert (tmp_path / "calls").read_text() == "--expiredate 1 -- daemon\n"
    assert done["refused"] == planned["refused"]
    assert done["refused"][0].startswith("1 jobs run in training.slice: spark-job-1-0123abcd.service: wait")


@pytest.mark.parametrize("module", ["cli", "stub", "helper", "report", "leftovers"])
def test_the_installed_program_runs_on_its_own(tmp_path: Path, module: str) -> None:
    """With nothing on its path but what is installed, as on a host."""
    (installed,) = (r for r in measure.apply(TrainingSliceSettings()) if isinstance(r, Installed))
    for name, source in installed.modules.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import sparkhost.launcher.{module}"
    subprocess.run([sys.executable, "-IS", "-c", code], check=True)


def contents(requested: object) -> dict[str, str]:
    """Path → content of the files that hosts are asked to have."""
    return {
        one["path"]: one["content"]
        for each in json.loads(json.dumps(requested))
        for one in each["resources"]
        if {"path", "content"} <= one.keys()
    }


@pytest.mark.parametrize("word", ["first", "end", "tell"])
def test_the_watchdog_is_told_what_becomes_of_a_broken_promise(word: str) -> None:
    """The setting is the launcher's, the deed the watchdog's; both files say the same."""
    settings = HostSettings.model_validate({"training_slice": {"over_promise": word}})
    found = contents(requests(settings, [measure, watchdog]))
    assert tomllib.loads(found[watchdog.CONFIG])["over_promise"] == word
    assert json.loads(found[measure.CONFIG])["over_promise"] == word


def test_promises_that_cannot_be_kept_are_mistakes() -> None:
    for size, reason in (("1MiB", "expected 64MiB at least"), ("200GiB", "is more than memory_max 100GiB")):
        with pytest.raises(ValidationError, match=reason):
            TrainingSliceSettings.model_validate({"memory_max": "100GiB", "job_memory_default": size})
    for key in ("admission", "over_promise"):
        with pytest.raises(ValidationError):
            TrainingSliceSettings.model_validate({key: "no"})
    written = measure.launcher_config(TrainingSliceSettings.model_validate({"job_memory_default": "20GiB"}))
    assert config.parse(settled(written, lambda: 120 * GIB)).job_memory_default == 20 * 2**30
    default = settled(measure.launcher_config(TrainingSliceSettings()), lambda: 120 * GIB)
    assert config.parse(default) == config.Config()
