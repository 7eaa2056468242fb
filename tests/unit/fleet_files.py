"""Fleet files for tests, written where the tests run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sparkfleet.settings import Fleet, FleetError, load_fleet

Load = Callable[[str], Fleet]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a text as the file x.yaml of the working directory."""
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> Fleet:
        Path("x.yaml").write_text(text, encoding="utf-8")
        return load_fleet(Path("x.yaml"))

    return load


def refused(load: Load, text: str) -> list[str]:
    """The lines of the mistakes in a text."""
    with pytest.raises(FleetError) as caught:
        load(text)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return list(caught.value.lines)
