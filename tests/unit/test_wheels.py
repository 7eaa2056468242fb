"""Wheels come from the cache by hash, and what is wrong with them is one line."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import pytest

from sparkfleet.wheel_cache import cache as wheel_cache
from sparkhost.base.resource import Need
from sparkhost.uv.resources import UvBinary
from tasks.lib import wheels
from tasks.lib.converge import needs
from tasks.lib.runs import Run
from tasks.lib.wanted import Wanted
from tasks.lib.way import Way

CONTENT = b"the content of a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NEED = Need(SHA256, "some-distribution-that-nobody-publishes==1.0", "aarch64")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no index: whatever is not there already cannot be had."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return wheel_cache() / SHA256


def test_a_wheel_in_the_cache_is_taken(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "x-1.0-py3-none-any.whl").write_bytes(CONTENT)
    assert wheels.fetch(NEED) == cache / "x-1.0-py3-none-any.whl"


def test_a_damaged_one_is_thrown_away_and_fetched_anew(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "x-1.0-py3-none-any.whl").write_bytes(CONTENT[:-1])
    with pytest.raises(wheels.NoWheel):
        wheels.fetch(NEED)
    assert list(cache.iterdir()) == []


def test_without_internet_it_is_one_line_that_says_where_to_put_the_file(cache: Path) -> None:
    with pytest.raises(wheels.NoWheel) as caught:
        wheels.fetch(NEED)
    line = str(caught.value)
    assert line.startswith("cannot download some-distribution-that-nobody-publishes==1.0 for aarch64: ")
    assert line.endswith(f"without internet, put the wheel into {cache}")
    assert "\n" not in line


def test_a_host_cannot_choose_what_is_downloaded() -> None:
    binary = UvBinary("0.13.9", {"aarch64": "a" * 64})
    measure = {"name": "uv", "resources": [binary.to_json()]}
    (honest,) = binary.may_need()
    for answer, accepted in (
        (asdict(honest), True),
        ({**asdict(honest), "requirement": "uv==0.13.9\n--index-url=http://evil.example"}, False),
        ({**asdict(honest), "sha256": "../../x"}, False),
    ):
        run = Run(Wanted([measure], {}), Way(), plan={"uv": {"changes": [{"needs": [answer]}]}})
        if accepted:
            assert needs(run, "uv") == [honest]
        else:
            with pytest.raises(wheels.NoWheel, match="a wheel that its settings do not name"):
                needs(run, "uv")
