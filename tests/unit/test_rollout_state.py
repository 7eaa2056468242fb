"""Batches of a rollout, and the file that says how far it has come."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.rollout.batches import batch_size, check_canaries, next_batch
from sparkfleet.rollout.state import Progress, RunState, load, save

NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True), unique=True, min_size=1, max_size=40)


@given(NAMES, st.integers(1, 50), st.data())
def test_every_host_is_in_one_batch_and_canaries_come_first(hosts: list[str], size: int, data: st.DataObject) -> None:
    canaries = data.draw(st.lists(st.sampled_from(hosts), unique=True))
    waiting: list[str] = hosts
    found: list[tuple[str, ...]] = []
    while batch := next_batch(waiting, canaries, size, proved=bool(found)):
        found.append(batch)
        waiting = [host for host in waiting if host not in batch]
    assert sorted(host for batch in found for host in batch) == sorted(hosts)
    later = found[1:] if canaries else found
    assert not canaries or set(found[0]) == set(canaries)
    assert [host for batch in later for host in batch] == [host for host in hosts if host not in canaries]
    assert all(1 <= len(batch) <= size for batch in later)


@given(NAMES, st.integers(1, 50))
def test_one_host_goes_alone_until_one_has_passed(hosts: list[str], size: int) -> None:
    """Also where all canaries were in use, and are waiting no more."""
    assert next_batch(hosts, ["a canary that was in use"], size, proved=False) == (hosts[0],)


def test_a_canary_that_is_no_host_is_named() -> None:
    with pytest.raises(CommandFailed, match="spark9") as caught:
        check_canaries(["spark1"], ["spark9"])
    assert caught.value.code is ExitCode.BAD_CONFIGURATION


@pytest.mark.parametrize(("text", "hosts", "wanted"), [("3", 2, 3), ("25%", 10, 2), ("1%", 5, 1), ("100%", 7, 7)])
def test_sizes(text: str, hosts: int, wanted: int) -> None:
    assert batch_size(text, hosts) == wanted


@pytest.mark.parametrize("text", ["", "0", "-1", "0%", "101%", "%", "1.5", "5%%", "٣", "9" * 5000])
def test_a_bad_size_is_refused(text: str) -> None:
    with pytest.raises(CommandFailed, match="--batch") as caught:
        batch_size(text, 10)
    assert caught.value.code is ExitCode.BAD_CONFIGURATION


def test_a_saved_run_is_resumed_with_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    hosts = dict(zip("abcdef", Progress, strict=True))
    save(path, RunState("digest", "commit", hosts))
    assert load(path, "digest", "commit").left() == tuple(h for h in "abcdef" if hosts[h] is not Progress.DONE)
    assert [entry.name for entry in path.parent.iterdir()] == ["run.json"]


@pytest.mark.parametrize(("digest", "commit", "named"), [("other", "c", "fleet file"), ("d", "other", "commit")])
def test_a_run_of_something_else_is_not_resumed(tmp_path: Path, digest: str, commit: str, named: str) -> None:
    save(tmp_path / "run.json", RunState("d", "c", {"a": Progress.DONE}))
    with pytest.raises(CommandFailed, match=named):
        load(tmp_path / "run.json", digest, commit)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "hosts": {"a": "well"}}', "\0"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(CommandFailed, match=r"run\.json") as caught:
        load(path, "d", "c")
    assert caught.value.code is ExitCode.BAD_CONFIGURATION
