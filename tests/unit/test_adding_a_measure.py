"""Follows docs/adding-a-measure.md in a copy of the project, to the letter, as far as that goes without a host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-a-measure.md").read_text()
FILE = re.compile(r"File\s+`([\w/.-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `([\w/.-]+)` \| `(.+?)` \| `(.+?)` \|$", re.MULTILINE)
CHECK = """\
from sparkfleet.audit.controls.sysrq import CONTROLS
from sparkfleet.audit.model import Evidence, NoEvidence, Observation, Status
from sparkfleet.settings import HostSettings, SysrqSettings
from tasks import sysrq

told, file = sysrq.apply(SysrqSettings(keys=144))
assert (told.value, file.content.splitlines()[-1]) == ("144", "kernel.sysrq = 144")
assert len(sysrq.remove(SysrqSettings())) == 2
for control in CONTROLS:
    for output, wanted in (("176\\n", Status.PASS), ("0\\n", Status.FAIL)):
        seen = Evidence({control.evidence[0]: Observation("sysctl kernel.sysrq", output)})
        assert control.judge(seen, HostSettings()).status is wanted
    try:
        control.judge(Evidence({}), HostSettings())
    except NoEvidence:
        continue
    raise SystemExit("a judge makes up its mind without evidence")
"""


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy, with everything that the page says done to it."""
    copy = tmp_path_factory.mktemp("project") / "sparkfleet"
    unneeded = shutil.ignore_patterns(".git", ".venv", ".lab", ".*_cache", ".hypothesis", "evidence", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unneeded)
    files, rows = FILE.findall(PAGE), ROW.findall(PAGE)
    assert (len(files), len(rows)) == (4, 7)
    for name, content in files:
        path = copy / name
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    done: dict[tuple[str, str], int] = {}
    for name, anchor, new in rows:
        lines = (copy / name).read_text().splitlines()
        at = next(number for number, line in enumerate(lines) if line.startswith(anchor)) + 1
        at += done.setdefault((name, anchor), 0)
        done[name, anchor] += 1
        (copy / name).write_text("\n".join([*lines[:at], new, *lines[at:]]) + "\n")
    return copy


def run(copy: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, *words], cwd=copy, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_task_and_judges_do_what_the_page_says(followed: Path) -> None:
    run(followed, "-c", f"import sys; sys.path[:0] = ['.', 'files/host']\n{CHECK}")


def test_the_settings_are_documented_by_one_command(followed: Path) -> None:
    run(followed, "-m", "sparkfleet.docs")
    assert "## sysrq" in (followed / "docs" / "settings.md").read_text()
    run(followed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_settings_docs.py")


def test_what_is_written_there_is_clean(followed: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    names = [name for name, _ in FILE.findall(PAGE) if name.endswith(".py")]
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *words, *names], cwd=followed, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
