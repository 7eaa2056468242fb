"""vLLM built on a host taken away again. By itself: every host without the measure is sent this, and looks once."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.store import home
from sparkhost.vllm_source.unit import ACCOUNT, UNIT, UNIT_FILE, is_building

ACCOUNTS = Path("/etc/passwd")


@dataclass(frozen=True)
class NoVllmSource(Resource):
    """No build of ours, no work of one, no account for it; refused while a process uses a build."""

    kind: ClassVar[str] = "no_vllm_source"
    is_basis: ClassVar[bool] = True

    def steps(self, context: Context) -> Iterator[Step]:
        for key in vllm_source_store.builds():
            if used := list(vllm_source_store.users(key)):
                raise Refused(f"{home(key)} is used by {len(used)} processes (PID {used[0]}): end them first")
        there = os.path.lexists(UNIT_FILE)
        paths = [path for path in (vllm_source_store.STORE, vllm_source_record.STATE) if path.exists()]
        if there and is_building():
            yield Step(UNIT, "stop the build that runs", partial(run, "systemctl", "stop", UNIT))
        if there and paths:
            yield Step(UNIT, "", forget_failure)
        for path in paths:
            yield Step(str(path), "remove", partial(remove_tree, path))
        if has_account():
            yield Step(ACCOUNT, "remove the account that compiled vLLM", partial(run, "userdel", ACCOUNT))


def forget_failure() -> None:
    """A unit that has failed would be listed as failed without its file."""
    with contextlib.suppress(Failed):
        run("systemctl", "reset-failed", UNIT)


def remove_tree(path: Path) -> None:
    shutil.rmtree(path)
    with contextlib.suppress(OSError):  # others of ours are there
        path.parent.rmdir()


def has_account() -> bool:
    """Looked up in the file alone: the account is local, and no directory service is asked for it."""
    return any(line.startswith(f"{ACCOUNT}:") for line in bounded.read_text(ACCOUNTS).splitlines())
