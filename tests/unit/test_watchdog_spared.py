"""Whose sessions are never frozen, by the host's files and by its directory services."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sparkhost.watchdog import spared

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
ada:x:1000:1000::/home/ada:/bin/sh
bob:x:1001:27::/home/bob:/bin/sh
cyd:x:1002:1002::/home/cyd:/bin/sh
odd:x:no:1003::/home/odd:/bin/sh
short:x:1004
"""
GROUP = "root:x:0:\nsudo:x:27:ada,gone\ntraining:x:900:cyd\n\xffrubbish\n"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), set()),
        (("@sudo",), {1000, 1001}),  # bob has it as his first group, which names no members
        (("cyd", "nobody-here", "@wheel"), {1002}),
        (("odd", "short"), set()),
    ],
)
def test_files_alone_are_enough(etc: Path, names: tuple[str, ...], found: set[int]) -> None:
    assert spared.from_files(names, etc) == found


def test_root_is_always_among_them_and_this_host_is_asked_too(etc: Path) -> None:
    assert spared.find_spared(("daemon", "@sudo"), etc) == {0, 1, 1000, 1001}


def test_files_that_are_not_there_cost_nothing(tmp_path: Path) -> None:
    assert spared.from_files(("@sudo",), tmp_path) == set()


def test_a_directory_service_that_is_away_holds_nobody_up(etc: Path) -> None:
    started = time.monotonic()
    assert spared.find_spared(("@sudo", *(f"user{n}" for n in range(200_000))), etc, deadline=0.0) >= {0, 1000, 1001}
    assert time.monotonic() - started < 10
