"""Whose a process is: accounts, services, and the user numbers that containers have been lent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.watchdog.owners import Range, account_of, is_person, parse_subuid, read_ranges
from tests.unit.process_tables import HEX, listed, process


def test_numbers_of_containers_count_as_their_account() -> None:
    ranges = parse_subuid(b"alice:100000:65536\n1002:165536:65536\n", b"root:x:0:0::/:\nalice:x:1001:1001::/:\n")
    assert ranges == (Range(100000, 165535, 1001), Range(165536, 231071, 1002))
    asked = (0, 999, 1001, 99999, 100000, 165535, 165536, 231072)
    assert [account_of(uid, ranges) for uid in asked] == [0, 999, 1001, 99999, 1001, 1001, 1002, 231072]
    container = f"/user.slice/user-1001.slice/user@1001.service/user.slice/libpod-{HEX}.scope"
    (found,) = listed(process(10, 1, 9, owner=100999, cgroup=container), ranges=ranges)
    assert found.owner == 1001
    # The range is in no file: a directory service has it. Whose login it is says the cgroup, which is root's.
    (found,) = listed(process(10, 1, 9, owner=700000, cgroup=container), ranges=ranges)
    assert found.owner == 1001


@pytest.mark.parametrize(
    "line",
    [
        b"bob:100000:65536",
        b"alice:x:5",
        b"alice:0:4294967295",
        b"alice:100000",
        b":100000:",
        b"alice:100000:0",
        b"\xff",
    ],
)
def test_a_line_that_lends_nothing_is_left_out(line: bytes) -> None:
    assert parse_subuid(line, b"alice:x:1001:1001::/:\n") == ()


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 2**32))
def test_no_file_makes_it_fail(text: bytes, passwd: bytes, uid: int) -> None:
    assert account_of(uid, parse_subuid(text, passwd)) >= 0


def test_a_file_that_is_none_holds_nothing_up(tmp_path: Path) -> None:
    assert read_ranges(tmp_path) == ()
    os.mkfifo(tmp_path / "subuid")
    assert read_ranges(tmp_path) == ()
    (tmp_path / "subuid").unlink()
    (tmp_path / "subuid").write_text("alice:100000:65536\n")
    (tmp_path / "passwd").write_text("alice:x:1001:1001::/:\n")
    assert read_ranges(tmp_path) == (Range(100000, 165535, 1001),)


@pytest.mark.parametrize(
    ("uid", "person"),
    [(0, False), (105, False), (1000, True), (60513, True), (64030, False), (65534, False), (100000, True)],
)
def test_who_is_a_person(uid: int, person: bool) -> None:
    assert is_person(uid) == person
