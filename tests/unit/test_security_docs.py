"""Every test that docs/security.md names is there: a claim without its test would be one that nobody checks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"


def test_every_test_that_the_page_names_exists() -> None:
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    functions = {
        name for path in files.values() for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    quoted = re.findall(r"`([^`\n]+)`", PAGE.read_text())
    named = {one.rpartition("/")[2]: one for one in quoted if re.fullmatch(r"(tests/\w+/)?test_\w+(\.py)?", one)}
    assert len(named) > 20
    missing = [
        one
        for name, one in named.items()
        if not ((ROOT / one).is_file() if "/" in one else name in files or name in functions)
    ]
    assert missing == []
