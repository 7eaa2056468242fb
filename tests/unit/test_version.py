"""What a deploy calls itself, with git, and in a copy that has neither git's files nor an installed release."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from sparkfleet import version

ASK = "import sys; sys.path.insert(0, sys.argv[1]); from sparkfleet.version import version; print(version())"


def asked(where: Path) -> str:
    """By a Python without site-packages: nothing is installed there."""
    done = subprocess.run([sys.executable, "-IS", "-c", ASK, where], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def copy_to(folder: Path) -> Path:
    (folder / "sparkfleet").mkdir(parents=True)
    for name in ("__init__.py", "version.py", "child.py"):
        shutil.copy(Path(version.__file__).with_name(name), folder / "sparkfleet")
    return folder


def test_an_unpacked_copy_has_no_name_and_deploys_all_the_same(tmp_path: Path) -> None:
    assert asked(copy_to(tmp_path)) == "unknown"


def test_a_checkout_is_called_by_its_commit_and_marked_where_files_differ(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    copy_to(tmp_path)
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert asked(tmp_path) == commit.strip()
    (tmp_path / "sparkfleet" / "__init__.py").write_text("# edited\n")
    assert asked(tmp_path) == f"{commit.strip()}-dirty"
