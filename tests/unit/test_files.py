"""Files are written in one step, foreign ones are kept, and failures leave the old one."""

import grp
import os
import pwd
import resource
import stat
from pathlib import Path

import pytest

from sparkhost.base import files
from sparkhost.base.files import File, Link, NoFile, NoLink, write_atomic
from sparkhost.base.resource import Context, Failed

OURS = "# managed by sparkfleet\nvalue = 1\n"
IDS = os.geteuid(), os.getegid()
# Files of whoever runs the tests: only root may give files away.
USER, GROUP = pwd.getpwuid(IDS[0]).pw_name, grp.getgrgid(IDS[1]).gr_name


def file(path: Path, mode: int = 0o644) -> File:
    return File(str(path), OURS, mode, USER, GROUP)


@pytest.fixture(autouse=True)
def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "BACKUPS", tmp_path / "var/backup")
    return tmp_path / "var/backup"


def converge(wanted: File | NoFile | Link | NoLink) -> list[str]:
    """Applies a resource where it differs, and checks that it then does not."""
    changes = [change.summary for change in wanted.plan(Context())]
    if changes:
        wanted.apply()
    assert list(wanted.plan(Context())) == []
    return changes


def test_a_file_is_created_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a/b/sparkfleet.conf"
    assert converge(file(path, 0o640)) == ["create"]
    assert path.read_text() == OURS
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [p.name for p in path.parent.iterdir()] == ["sparkfleet.conf"]


def test_a_foreign_file_comes_back_with_its_mode_on_removal(tmp_path: Path, backups: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("theirs\n")
    path.chmod(0o600)
    assert converge(file(path)) == ["rewrite"]
    path.write_text("edited by hand\n")
    assert converge(file(path)) == ["rewrite"]
    assert stat.S_IMODE(backups.stat().st_mode) == 0o700
    assert converge(NoFile(str(path))) == ["put back what was there before sparkfleet"]
    assert path.read_text() == "theirs\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_removal_takes_our_directories_along_and_leaves_the_distributions(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "system/x.service.d/sparkfleet.conf", tmp_path / "profile.d/sparkfleet.sh"
    for path in (ours, theirs):
        converge(file(path))
        assert converge(NoFile(str(path))) == ["remove"]
    assert not ours.parent.exists()
    assert ours.parents[1].exists()
    assert theirs.parent.exists()


def test_removal_leaves_a_file_that_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("somebody put this here later\n")
    assert converge(NoFile(str(path))) == []
    assert path.exists()


def test_a_link_to_dev_null_is_an_override_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.symlink_to("/dev/null")
    assert converge(file(path)) == ["replace the link to /dev/null by our file"]
    assert not path.is_symlink()
    assert path.read_text() == OURS


def test_owner_and_mode_are_part_of_the_state(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text(OURS)
    path.chmod(0o666)
    (change,) = converge(file(path))
    assert change.startswith(f"set owner and mode to {USER}:{GROUP} 0644")
    assert change.endswith("0666)")


def test_a_directory_in_the_way_is_one_clear_failure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="not a regular file: move it away"):
        file(tmp_path).plan(Context())


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("old\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a full disk: the kernel stops the write half-way
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, b"x" * 100_000, 0o644, *IDS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x.conf"]


def test_links_are_switched_and_removed_only_if_ours(tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text("another tool\n")
    path.chmod(0o755)
    converge(Link(str(path), "/opt/sparkfleet/1/tool"))
    assert converge(Link(str(path), "/opt/sparkfleet/2/tool")) == [
        "link to /opt/sparkfleet/2/tool (was /opt/sparkfleet/1/tool)"
    ]
    assert converge(NoLink(str(path), "/usr/")) == []
    assert converge(NoLink(str(path), "/opt/sparkfleet/")) == ["remove the link"]
    assert path.read_text() == "another tool\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
