"""What this sparkfleet is: its release, or the commit of the checkout that it runs from."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from sparkfleet import child

CHECKOUT = Path(__file__).resolve().parents[1]
"""Where git's files are; nothing of git's is there for a release, though a folder above may have some."""
LONGEST = 200
UNKNOWN = "unknown"


@cache
def version() -> str:
    """The commit of this checkout as `git describe` names it, with `-dirty` where files differ; else the release.

    "unknown" for an unpacked copy that nobody installed: what is deployed counts, not what it is called.
    """
    # safe.directory: root deploys from a user's checkout as well (`sudo … @local`), and runs its code anyway.
    if not (CHECKOUT / ".git").exists():
        return release()
    git = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT)]
    try:
        answer = child.run([*git, "describe", "--tags", "--always", "--dirty"], child.Limits(60))
    except (OSError, child.OutOfBounds):
        return release()
    return answer.stdout.decode(errors="replace").strip()[:LONGEST] if answer.rc == 0 else release()


def release() -> str:
    """The version in pyproject.toml, as it was installed; "unknown" for a copy that was not."""
    try:
        return installed("sparkfleet")
    except PackageNotFoundError:
        return UNKNOWN
