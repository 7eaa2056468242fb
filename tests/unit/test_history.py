"""The history on a host, the lock of a deploy, and what a controller reads from them."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.deploy.cause import Cause, cause_of
from sparkfleet.deploy.outcome import outcomes
from sparkfleet.deploy.report import as_json, details
from sparkfleet.exit_codes import ExitCode
from sparkfleet.settings import HostSettings
from sparkhost.base import converge, deploylock, files, history
from sparkhost.base.deploylock import Busy, Holder, held
from sparkhost.base.files import File, NoFile
from sparkhost.ssh import guard, unproved
from tasks.lib import origin

USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(deploylock, "LOCK", tmp_path / "deploy.lock")
    monkeypatch.setattr(history, "APPLIED", tmp_path / "applied.json")
    monkeypatch.setattr(files, "BACKUPS", tmp_path / "backup")
    monkeypatch.setattr(unproved, "DIRECTORY", tmp_path / "rollback")
    return tmp_path


@contextmanager
def process() -> Iterator[int]:
    """A process that stands for the one which serves a session, as long as the block lasts."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            yield child.pid
        finally:
            child.kill()


def deploy(token: str, pid: int | None = None, version: str = "v1", state: str = "present") -> dict[str, Any]:
    measures = {"one": {"state": state, "settings": "s1"}, "two": {"state": state, "settings": "s2"}}
    known = {"token": token, "by": f"{token}@laptop", "pid": pid, "version": version}
    return {**known, "fleet_file": "fleet.yaml", "settings": "s", "measures": measures}


def apply(who: dict[str, Any], measure: str, *resources: File | NoFile) -> dict[str, Any]:
    measures = [{"name": measure, "resources": [resource.to_json() for resource in resources]}]
    return converge.run({"action": "apply", "modules": [], "measures": measures, "deploy": who, "measure": measure})


def record(who: dict[str, Any], **results: str) -> dict[str, Any]:
    return converge.run({"action": "record", "modules": [], "measures": [], "deploy": who, "results": results})


def plan() -> dict[str, Any]:
    return converge.run({"action": "plan", "modules": [], "measures": []})


def ours(path: Path) -> File:
    return File(str(path), "managed by sparkfleet\n", 0o644, USER, GROUP)


def test_a_second_deploy_is_told_whose_the_host_is_and_changes_nothing(host: Path) -> None:
    with process() as pid:
        assert "busy" not in apply(deploy("ann", pid), "one", ours(host / "a"))
        with process() as other:
            answer = apply(deploy("bob", other), "one", ours(host / "b"))
        assert answer["busy"].startswith("ann@laptop has been deploying to this host for 0 s: ")
        assert f"sudo kill {pid} there" in answer["busy"]
        assert not (host / "b").exists()
        assert "busy" not in apply(deploy("ann", pid), "two", ours(host / "c"))
        assert plan()["history"]["last"]["by"] == "ann@laptop", "looking takes no lock"


def test_the_lock_is_free_after_the_end_of_a_deploy(host: Path) -> None:
    with process() as pid:
        apply(deploy("ann", pid), "one", ours(host / "a"))
        assert record(deploy("ann", pid), one="changed")["notes"] == []
        with process() as other:
            assert "busy" not in apply(deploy("bob", other), "one", ours(host / "b"))


def test_a_killed_controller_holds_nothing(host: Path) -> None:
    with process() as pid:
        apply(deploy("ann", pid), "one", ours(host / "a"))
    with process() as other:
        assert "busy" not in apply(deploy("bob", other), "one", ours(host / "b"))
    assert [one["ended"] for one in history.read()["deploys"]] == [None, None]


def test_a_command_at_work_holds_the_lock_although_its_controller_is_gone(host: Path) -> None:
    """The kernel's own lock: another open file of the same process stands for the other process."""
    with (
        held(deploy("ann", 2**22 + 1)),
        pytest.raises(Busy, match="ann@laptop has been deploying"),
        held(deploy("bob")),
    ):
        pass
    with held(deploy("bob")):
        pass


def holder(**values: Any) -> Holder:
    me = os.getpid()
    known = {"token": "t", "by": "ann@laptop", "since": time.time(), "used": time.time()}
    return Holder(**{**known, "pid": me, "started": deploylock.start_of(me), "over_ssh": False, **values})


def test_who_lives() -> None:
    assert holder().lives()
    assert not holder(started=1).lives(), "the number of a process that ended went to another one"
    assert holder(pid=0).lives()
    assert not holder(pid=0, used=time.time() - deploylock.UNKNOWN_LIVES - 1).lives()
    assert "for 3 min" in holder(since=time.time() - 200).line()


def test_a_silent_controller_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        accepted.sendall(b"x")
        client.recv(1)
        silent = deploylock.silence(os.getpid())
        assert silent is not None
        assert silent < 60
        assert holder(over_ssh=True).lives()
        monkeypatch.setattr(deploylock, "SILENT", 0.0)
        assert not holder(over_ssh=True).lives()
        accepted.close()


def test_the_session_is_the_sshd_above_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploylock, "PROC", tmp_path)
    chain = {os.getpid(): ("python3", 30), 30: ("sudo (x)", 20), 20: ("sshd-session", 10), 10: ("sshd", 1)}
    for pid, (name, parent) in chain.items():
        (tmp_path / str(pid)).mkdir()
        fields = f"S {parent} " + " ".join(map(str, range(5, 30)))
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {fields}\n")
    assert deploylock.session() == 20
    assert deploylock.start_of(20) == 22, "field 22 of proc(5)"
    (tmp_path / "20" / "stat").unlink()
    assert deploylock.session() == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 1}', "null"])
def test_a_lock_that_was_cut_short_holds_nobody_up(host: Path, text: str) -> None:
    deploylock.LOCK.write_text(text)
    with held(deploy("ann")):
        pass


def test_nobody_else_can_open_the_lock(host: Path) -> None:
    with held(deploy("ann")):
        assert deploylock.LOCK.stat().st_mode & 0o077 == 0


def test_a_deploy_is_in_the_history_from_its_first_change_on(host: Path) -> None:
    apply(deploy("ann"), "one", ours(host / "a"))
    (entry,) = history.read()["deploys"]
    assert entry["measures"] == {"one": {"changes": 1, "result": "changed"}}
    assert entry["ended"] is None
    record(deploy("ann"), one="changed", two="refused")
    found = history.read()
    (entry,) = found["deploys"]
    assert entry["measures"]["two"] == {"changes": 0, "result": "refused"}
    assert entry["ended"]
    assert {name: one["result"] for name, one in found["measures"].items()} == {"one": "changed", "two": "refused"}
    assert found["measures"]["one"]["settings"] == "s1"


def test_the_history_is_bounded_and_goes_with_the_last_measure(host: Path) -> None:
    for number in range(history.MOST + 5):
        record(deploy(f"run{number}"))
    kept = history.read()["deploys"]
    assert [kept[0]["token"], len(kept)] == ["run5", history.MOST]
    apply(deploy("last", state="absent"), "one", NoFile(str(host / "a")))
    record(deploy("last", state="absent"), two="failed")
    assert set(history.read()["measures"]) == {"two"}
    record(deploy("again", state="absent"))
    assert not history.APPLIED.exists()
    record(deploy("more", state="absent"))
    assert not history.APPLIED.exists()


def test_an_unmanaged_measure_stands_as_it_was(host: Path) -> None:
    record(deploy("ann"))
    record(deploy("bob", version="v2", state="unmanaged"))
    assert {one["version"] for one in history.read()["measures"].values()} == {"v1"}


DAMAGED = [
    *("", "{", "[]", '{"format": 1}', '{"format": 2, "measures": {}, "deploys": []}'),
    '{"format": 1, "measures": {"a": 1}, "deploys": []}',
    '{"format": 1, "measures": {}, "deploys": [1]}',
    '{"format": 1, "measures": {}, "deploys": [{}]}',
    '{"format": 1, "measures": {}, "deploys": [{"measures": {"a": {}}}]}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_history_stops_nothing(host: Path, text: str) -> None:
    history.APPLIED.write_text(text)
    assert plan()["history"] == {"measures": {}, "last": None}
    record(deploy("ann"))
    assert set(history.read()["measures"]) == {"one", "two"}


def test_a_history_that_cannot_be_written_is_told_and_undoes_nothing(host: Path) -> None:
    history.APPLIED.mkdir()
    answer = apply(deploy("ann"), "one", ours(host / "a"))
    assert answer["applied"]["error"] is None
    (note,) = answer["notes"]
    assert note.startswith("the history of this host cannot be written: Is a directory")


def test_the_steps_of_a_proof_need_no_lock(host: Path) -> None:
    step = guard.GuardStep("token", "take_back", [])
    with process() as pid:
        apply(deploy("ann", pid), "one", ours(host / "a"))
        request = {"action": "apply", "modules": [], "measures": [{"name": "ssh", "resources": [step.to_json()]}]}
        assert converge.run(request)["applied"]["error"] is None


LAST = {"version": "v1", "settings": "s", "ended": "x", "measures": {"one": {"changes": 1, "result": "changed"}}}
REFUSED = {**LAST, "measures": {"one": {"changes": 0, "result": "refused"}}}


@pytest.mark.parametrize(
    ("last", "results", "changed", "state", "expected"),
    [
        (LAST, {}, False, "present", False),
        (LAST, {}, True, "present", True),
        ({**LAST, "version": "v0"}, {}, False, "present", True),
        ({**LAST, "settings": "t"}, {}, False, "present", True),
        ({**LAST, "ended": None}, {}, False, "present", True),
        (LAST, {"one": "refused"}, False, "present", True),
        (
            {**LAST, "measures": {"one": {"changes": 0, "result": "refused"}}},
            {"one": "refused"},
            False,
            "present",
            False,
        ),
        ({**LAST, "measures": {"one": {"changes": 0, "result": "refused"}}}, {}, False, "present", True),
        (None, {}, False, "present", True),
        (None, {}, False, "absent", False),
    ],
)
def test_a_rerun_is_recorded_only_where_it_has_something_new_to_say(
    last: dict[str, Any] | None, results: dict[str, str], changed: bool, state: str, expected: bool
) -> None:
    assert origin.to_record(deploy("ann", state=state), results, last, changed=changed) is expected


def test_what_a_host_is_told_of_a_deploy() -> None:
    first = origin.deploy_of(HostSettings(), ["swap", "uv"], local=False)
    other = HostSettings.model_validate({"swap": {"mode": "keep"}})
    second = origin.deploy_of(other, ["swap", "uv"], local=True)
    assert first["token"] == second["token"]
    assert (first["pid"], second["pid"]) == (None, os.getpid())
    assert first["settings"] != second["settings"]
    assert first["measures"]["swap"] != second["measures"]["swap"]
    assert first["measures"]["uv"] == second["measures"]["uv"]
    assert first["version"]
    assert "@" in first["by"]


STANDS = {"at": "2026-11-20T10:00:00Z", "version": "v1", "settings": "s1", "result": "changed"}
CAUSES = [
    ({}, Cause.NEVER, "never applied to this host"),
    ({"one": STANDS}, Cause.DRIFT, "the host has drifted since it was applied by v1 on 2026-11-20"),
    ({"one": {**STANDS, "settings": "x"}}, Cause.SETTINGS, "its settings have changed since"),
    ({"one": {**STANDS, "version": "v0"}}, Cause.VERSION, "another version: v0 on 2026-11-20; this is v1"),
    ({"one": {**STANDS, "result": "failed"}}, Cause.INCOMPLETE, "failed when it was applied by v1"),
    ({"one": {"version": 7}}, Cause.INCOMPLETE, "? when it was applied by ? on ?"),
    ([], Cause.UNKNOWN, ""),
]


@pytest.mark.parametrize(("applied", "cause", "said"), CAUSES)
def test_drift_is_told_apart_from_what_was_never_applied(applied: Any, cause: Cause, said: str) -> None:
    told = {"host": "a", "event": "history", "version": "v1", "wanted": {"one": "s1"}, "applied": applied}
    found, line = cause_of("one", told)
    assert (found, said in line) == (cause, True)
    change = {"what": "/etc/x", "summary": "rewrite", "diff": ""}
    plan = {"host": "a", "event": "plan", "measure": "one", "changes": [change], "refused": [], "error": None}
    lines = [json.dumps(event) for event in (told, plan, {"host": "a", "event": "planned"})]
    (one,) = outcomes(["a"], lines, dry=True)
    measure = json.loads(as_json([one], ExitCode.DRIFT))["hosts"]["a"]["measures"]["one"]
    assert measure["cause"] == cause
    assert details(one, diff=False)[0] == (f"one: {line}" if line else "one: /etc/x: would rewrite")


def test_the_holder_survives_the_file() -> None:
    one = holder()
    assert deploylock.read(json.dumps(asdict(one))) == one
