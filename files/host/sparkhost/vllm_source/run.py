"""Builds vLLM as the host's configuration says, step by step: what sparkfleet-vllm-source.service runs, as root.

Foreign code never runs as root: a step that runs some starts it as the build's account (`Shell`). A step that is done
is not done again; one that was cut off is tried again with all that it has left in the build's directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.base.files import make_directories
from sparkhost.base.resource import Failed
from sparkhost.stack import store as stack_store
from sparkhost.vllm_source import check as vllm_source_check
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source.install import imported, installed, leftovers, switched
from sparkhost.vllm_source.record import Record, Step, asked_for, keep_only, log_of, read_record
from sparkhost.vllm_source.shell import Shell, StepFailed, any_text, one_line
from sparkhost.vllm_source.steps import FOREIGN, Build, Run
from sparkhost.vllm_source.store import Request, builds, current, is_whole, key_of

CONFIG = Path("/etc/sparkfleet/vllm-source.json")
ACCOUNT = "sparkfleet-build"
UV = "/usr/local/bin/uv"


class Interrupted(BaseException):
    """The unit is being stopped, or has used up its time."""


def check(build: Build, shell: Shell) -> str:
    if wrong := list(vllm_source_check.wrong(build)):
        raise StepFailed("; ".join(wrong))
    return "tools and room are there"


STEPS: tuple[tuple[str, Run], ...] = (
    ("check", check),
    *FOREIGN,
    ("install", installed),
    ("import", imported),
    ("switch", switched),
)
NAMES = tuple(name for name, _ in STEPS)
ALWAYS = ("check",)
"""Done again in every try: the host may have changed."""


def main() -> int:
    """For the unit. Exit codes: 0 built and in use, 1 a step failed, which is named with the log."""
    os.umask(0o022)
    any_text()
    signal.signal(signal.SIGTERM, interrupted)
    try:
        build = wanted(read_request(), UV)
    except StepFailed as failure:
        print(f"spark-vllm-build: {failure}", file=sys.stderr)
        return 1
    try:
        with alone():
            failed = carry_out(build, account())
    except Interrupted:
        print("spark-vllm-build: was stopped between two steps", file=sys.stderr)
        return 1
    if failed is None:
        return 0
    print(f"spark-vllm-build: the step {failed.name} failed: {failed.note}; log: {log_of(build.key)}", file=sys.stderr)
    return 1


def interrupted(number: int, frame: object) -> None:
    raise Interrupted


def account() -> pwd.struct_passwd | None:
    """Who compiles: nobody but the build's own account where this is root."""
    return pwd.getpwnam(ACCOUNT) if os.geteuid() == 0 else None


def read_request() -> Request:
    """Raises StepFailed where there is none that can be understood."""
    try:
        values = json.loads(bounded.read_text(CONFIG))
        values.pop("_", None)
        return Request(**values)
    except (Failed, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StepFailed(f"{CONFIG} cannot be read: deploy the measure vllm_source: {error}") from error


def wanted(request: Request, uv: str) -> Build:
    """The build that is asked for, on the stack in use. Raises StepFailed where there is none, or another was meant."""
    release = stack_store.current()
    if not release or stack_store.read_manifest(stack_store.home(release)) is None:
        raise StepFailed("there is no stack on this host: the measure stack must be present")
    build = Build(request, key_of(request, release), release, uv)
    if asked_for() not in ("", build.key):
        raise StepFailed(f"the host has changed since the build {asked_for()} was asked for: deploy again")
    return build


@contextmanager
def alone() -> Iterator[None]:
    """Waits until nobody else builds here; the unit itself runs once at a time."""
    make_directories(vllm_source_record.STATE)
    with (vllm_source_record.STATE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def carry_out(build: Build, who: pwd.struct_passwd | None, steps: Sequence[tuple[str, Run]] = STEPS) -> Step | None:
    """All steps that are not done. The one that failed, or None."""
    if current() == build.key and is_whole(build.key):
        return None
    record = read_record(build.key)
    if record is None or (not build.work.is_dir() and not is_whole(build.key)):
        record = Record(build.key, build.request.commit, build.release)
    prepared(build, who)
    with log_of(build.key).open("ab") as log:
        shell = Shell(log, build.environment(), who)
        for name, run in steps:
            if record.is_done(name) and name not in ALWAYS:
                shell.say(f"== {name}: done before")
                continue
            step = tried(record, name, run, build, shell)
            if step.state == "failed":
                return step
    return None


def tried(record: Record, name: str, run: Run, build: Build, shell: Shell) -> Step:
    """One step, timed and noted, however it ends."""
    step = record.begin(name, datetime.now(UTC).isoformat(timespec="seconds"))
    record.save()
    shell.say(f"== {name}: {step.started}")
    began = time.monotonic()
    try:
        step.note, step.state, step.status = one_line(run(build, shell)), "done", 0
    except StepFailed as failure:
        step.note, step.state, step.status = one_line(str(failure)), "failed", failure.status
    except Failed as failure:
        step.note, step.state, step.status = one_line(str(failure)), "failed", 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        step.note, step.state, step.status = f"{os.strerror(error.errno or 0)}{where}", "failed", 1
    except Interrupted:
        step.note, step.state, step.status = "was stopped", "failed", -signal.SIGTERM
    finally:
        step.seconds = round(time.monotonic() - began, 1)
        if step.state == "running":
            step.note, step.state, step.status = "ended by a mistake of ours, see the journal", "failed", 1
        record.save()
    shell.say(f"== {name}: {step.state} after {step.seconds:.1f} s: {step.note}")
    return step


def prepared(build: Build, who: pwd.struct_passwd | None) -> None:
    """The build's directories, its account's; other builds that were given up go."""
    uid, gid = (who.pw_uid, who.pw_gid) if who else (os.geteuid(), os.getegid())
    for path in leftovers():
        shutil.rmtree(path)
    state = vllm_source_record.STATE
    make_directories(state / "work")
    for path in (state / "work").iterdir():
        if path.name != build.key:
            shutil.rmtree(path)
    keep_only([build.key, *builds()])
    # home: for an SSH key of the site's (mode 0700); the rest is for everybody to look at.
    for path, mode in ((state / "home", 0o700), (build.work, 0o755)):
        path.mkdir(mode=mode, exist_ok=True)
        os.chown(path, uid, gid)
