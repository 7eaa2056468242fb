"""Wheels come from the cache by hash, and what is wrong with them is one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sparkhost.resource import Need
from tasks.lib import wheels

CONTENT = b"the content of a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NEED = Need(SHA256, "some-distribution-that-nobody-publishes==1.0", "aarch64")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no index: whatever is not there already cannot be had."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(wheels, "_FETCHED", {})
    monkeypatch.setattr(wheels, "_FAILED", {})
    return wheels.cache() / SHA256


def test_a_wheel_in_the_cache_is_taken(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "x-1.0-py3-none-any.whl").write_bytes(CONTENT)
    assert wheels.fetch(NEED) == cache / "x-1.0-py3-none-any.whl"


def test_another_file_is_not_taken_but_named_and_left(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "x-1.0-py3-none-any.whl").write_bytes(CONTENT[:-1])
    with pytest.raises(wheels.NoWheel, match=r"\(x-1\.0-py3-none-any\.whl in there has another SHA-256\)$"):
        wheels.fetch(NEED)
    assert [path.name for path in cache.iterdir()] == ["x-1.0-py3-none-any.whl"]


def test_one_that_cannot_be_had_is_tried_for_once_for_all_hosts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    def download(need: Need, aside: Path, directory: Path) -> Path:
        tries.append(aside)
        raise wheels.NoWheel("no network")

    monkeypatch.setattr(wheels, "download", download)
    for _ in range(3):
        with pytest.raises(wheels.NoWheel, match="no network"):
            wheels.fetch(NEED)
    assert len(tries) == 1
    assert not tries[0].exists(), "nothing may be left of a download that failed"


def test_a_download_with_another_hash_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(need: Need, aside: Path, directory: Path) -> Path:
        (aside / "x-1.0-py3-none-any.whl").write_bytes(CONTENT[:-1])
        return aside / "x-1.0-py3-none-any.whl"

    monkeypatch.setattr(wheels, "download", download)
    with pytest.raises(wheels.NoWheel, match="does not have the SHA-256"):
        wheels.fetch(NEED)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sparkfleet").write_text("a file where the cache should be")
    with pytest.raises(wheels.NoWheel, match="cannot keep wheels in "):
        wheels.fetch(NEED)


def test_without_internet_it_is_one_line_that_says_where_to_put_the_file(cache: Path) -> None:
    with pytest.raises(wheels.NoWheel) as caught:
        wheels.fetch(NEED)
    line = str(caught.value)
    assert line.startswith("cannot download some-distribution-that-nobody-publishes==1.0 for aarch64: ")
    assert line.endswith(f"without internet, put the wheel into {cache}")
    assert "\n" not in line
