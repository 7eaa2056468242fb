"""The way back: what a path was comes back as it was, and a step on somebody else's change does nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparkhost.base import files, pid1
from sparkhost.base.resource import Context, Failed, Refused
from sparkhost.ssh import arming, guard, rollback, sshd, unproved
from sparkhost.ssh.guard import Guarded, GuardStep
from sparkhost.ssh.unproved import Armed


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproved, "DIRECTORY", tmp_path / "rollback")
    monkeypatch.setattr(files, "BACKUPS", tmp_path / "backup")


def test_what_a_path_was_comes_back(tmp_path: Path) -> None:
    changed, gone, link, new = (tmp_path / name for name in ("changed", "gone", "link", "a.d/b.d/new"))
    changed.write_bytes(b"before\0\xff")
    changed.chmod(0o640)
    gone.write_text("there")
    link.symlink_to("/dev/null")
    entries = unproved.keep([changed, gone, link, new])
    changed.write_text("after")
    changed.chmod(0o777)
    gone.unlink()
    link.unlink()
    link.write_text("a file now")
    new.parent.mkdir(parents=True)
    new.write_text("new")
    assert unproved.restore(entries) == []
    assert changed.read_bytes() == b"before\0\xff"
    assert changed.stat().st_mode & 0o777 == 0o640
    assert gone.read_text() == "there"
    assert os.readlink(link) == "/dev/null"  # noqa: PTH115 - as text
    unproved.discard(entries)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed", "gone", "link"]
    assert not any(unproved.differs(entry) for entry in entries)


def test_an_error_on_one_path_does_not_keep_the_others_from_coming_back(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_text("before")
    good.write_text("before")
    entries = unproved.keep([bad, good])
    bad.unlink()
    bad.mkdir()
    (bad / "in the way").touch()
    good.write_text("after")
    (problem,) = unproved.restore(entries)
    assert problem.startswith(f"{bad}: ")
    assert good.read_text() == "before"


def test_what_is_added_to_a_new_directory_by_others_stays(tmp_path: Path) -> None:
    path = tmp_path / "unit.d" / "ours"
    entries = unproved.keep([path])
    path.parent.mkdir()
    path.write_text("ours")
    (path.parent / "theirs").write_text("theirs")
    assert unproved.restore(entries) == []
    assert [entry.name for entry in path.parent.iterdir()] == ["theirs"]


def test_a_step_needs_the_change_that_it_names() -> None:
    step = GuardStep("mine", "confirm", [])
    with pytest.raises(Failed, match="does not wait for this proof any more: it was never armed"):
        step.plan(Context())
    with unproved.locked():
        unproved.write(Armed("somebody else's", "changed", 0.0, []))
    with pytest.raises(Failed, match="does not wait for this proof"):
        step.plan(Context())
    assert GuardStep("mine", "take_back", []).plan(Context()) == []


def test_an_unproved_change_of_an_earlier_run_is_taken_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guarded("mine", [], 120, True, -1000, [])
    monkeypatch.setattr(sshd, "stale_listener", lambda _files: "")
    assert guarded.plan(Context()) == []
    with unproved.locked():
        unproved.write(Armed("an earlier one", "changed", 0.0, []))
    (change,) = guarded.plan(Context())
    assert "never proved" in change.summary


def test_the_copy_on_the_host_stands_alone(tmp_path: Path) -> None:
    """As the timer runs it: without this project on any path."""
    command: Sequence[str] = arming.install_program()
    directory = tmp_path / "rollback" / "program" / "sparkhost"
    found = {path.stem for path in directory.rglob("*.py")}
    assert found == {"__init__", "bounded", "diff", "files", "pid1", "resource", "rollback", "take_back_sh", "unproved"}
    assert command[0] == "/bin/sh"
    program = Path(command[-1]).with_name("take_back.py")
    assert not set(" ".join(command)) & set(";\\\"'$%"), "systemd 252 garbles them in transient units"
    program.write_text(program.read_text().replace("sys.exit(main(", "print(main.__code__.co_filename, ("))
    said = pid1.run("/usr/bin/python3", "-I", "-S", "-B", str(program))
    assert said.split() == [str(directory / "ssh" / "rollback.py"), str(tmp_path / "rollback")]


def test_the_report_is_told_once() -> None:
    assert guard.pop_report() == []
    with unproved.locked():
        rollback.report_file().write_text("taken back\n")
    assert guard.pop_report() == ["taken back"]
    assert guard.pop_report() == []


def test_a_proof_that_comes_while_the_change_is_taken_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with unproved.locked():
        unproved.write(Armed("mine", "changed", 0.0, []))
    step = GuardStep("mine", "confirm", [])
    assert [change.summary for change in step.plan(Context())] == ["confirm"]
    assert guard.waits_for_proof()
    unproved.move(unproved.ARMED, unproved.TAKING_BACK)
    with pytest.raises(Failed, match="does not wait for this proof"):
        step.plan(Context())
    assert not guard.waits_for_proof()
    monkeypatch.setattr(sshd, "stale_listener", lambda _files: "")
    (change,) = Guarded("mine", [], 120, True, -1000, []).plan(Context())
    assert "never proved" in change.summary


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00\n\n", b"token\tx\nsince\tnever\nfile\tno\n", b"stage\n" * 9])
def test_a_damaged_record_is_a_change_to_take_back(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd, "stale_listener", lambda _files: "")
    with unproved.locked():
        (unproved.DIRECTORY / unproved.ARMED).write_bytes(content)
    armed = unproved.read()
    assert armed is not None
    assert armed.damage
    (change,) = Guarded("mine", [], 120, True, -1000, []).plan(Context())
    assert "never proved" in change.summary


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    armed = Armed("token", "restarting", 12.0, ["ssh.service"], unproved.keep([tmp_path / "x", tmp_path / "a/b"]))
    with unproved.locked():
        unproved.write(armed)
    assert unproved.read() == armed
    kinds = [(entry.kind, entry.path.name) for entry in armed.entries]
    assert kinds == [("file", "x"), ("absent", "b"), ("directory", "a")]


def test_what_an_older_version_armed_is_left_to_its_own_timer() -> None:
    with unproved.locked():
        (unproved.DIRECTORY / "armed.json").write_text("{}")
    with pytest.raises(Refused, match=r"run `systemctl start sparkfleet-rollback\.service`, which takes it back"):
        Guarded("mine", [], 120, True, -1000, []).plan(Context())


def test_attributes_come_back_too(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    try:
        os.setxattr(path, "user.note", b"theirs")
    except OSError:
        pytest.skip("no attributes on this file system")
    entries = unproved.keep([path])
    path.unlink()
    path.write_text("x")
    assert unproved.differs(entries[0])
    assert unproved.restore(entries) == []
    assert os.getxattr(path, "user.note") == b"theirs"
