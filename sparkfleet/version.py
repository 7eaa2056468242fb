"""What this sparkfleet is: the commit of the checkout that it runs from."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from sparkfleet import child

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 200


@cache
def version() -> str:
    """The commit of this checkout as `git describe` names it, with `-dirty` where files differ; else the release.

    "unknown" for an unpacked copy that nobody installed: what is deployed counts, not what it is called.
    """
    # safe.directory: root deploys from a user's checkout as well (`sudo … @local`), and runs its code anyway.
    words = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "describe", "--tags", "--always", "--dirty"]
    try:
        answer = child.run(words, child.Limits(60))
    except (OSError, child.OutOfBounds):
        return release()
    return answer.stdout.decode(errors="replace").strip()[:LONGEST] if answer.rc == 0 else release()


def release() -> str:
    try:
        return installed("sparkfleet")
    except PackageNotFoundError:
        return "unknown"
