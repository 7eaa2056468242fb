"""vLLM built on a host, as resources: a build is started in the background and left alone.

A plan looks whether the wanted build is in use. Where it is not, the change is to start the unit that builds it; while
that runs for the wanted build, nothing differs (ADR 13).
"""

from __future__ import annotations

import contextlib
import pwd
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sparkhost.base.files import make_directories
from sparkhost.base.pid1 import run, show
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.stack import store as stack_store
from sparkhost.vllm_source import check as vllm_source_check
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.install import remove
from sparkhost.vllm_source.record import Record, read_record
from sparkhost.vllm_source.steps import Build
from sparkhost.vllm_source.store import Request, current, home, is_whole, key_of
from sparkhost.vllm_source.unit import ACCOUNT, UNIT, UNIT_FILE, is_building

SLICE = "training.slice"
SLICE_FILE = f"{UNIT_DIRECTORY}/{SLICE}"
HINT = f"in the background: spark-vllm-source status, journalctl -fu {UNIT.removesuffix('.service')}"
MOST_NAMED = 3


@dataclass(frozen=True)
class BuildAccount(Resource):
    """The account that compiles: of no person, with nothing but its builds."""

    kind: ClassVar[str] = "vllm_source_account"
    home: str

    def steps(self, context: Context) -> Iterator[Step]:
        try:
            entry = pwd.getpwnam(ACCOUNT)
        except KeyError:
            yield Step(ACCOUNT, "create the account that compiles vLLM", self._create)
            return
        if entry.pw_uid == 0:
            raise Refused(f"{ACCOUNT} is root by another name on this host: foreign code would run as root")

    def _create(self) -> None:
        run(
            *("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", self.home),
            *("--shell", "/usr/sbin/nologin", "--comment", "managed by sparkfleet, measure vllm_source", ACCOUNT),
        )


@dataclass(frozen=True)
class VllmBuild(Resource):
    """The build of a commit on the stack that is in use, in use itself; or on its way to be."""

    kind: ClassVar[str] = "vllm_source_build"
    # The unit that builds must be the one that this deploy has written.
    after_reload: ClassVar[bool] = True
    request: dict[str, Any] = field(default_factory=dict)
    """The values of `Request`."""
    uv: str = ""
    memory_max: int = 0
    """Bytes; of the unit."""

    def steps(self, context: Context) -> Iterator[Step]:
        request = Request(**self.request)
        name = f"vLLM {request.commit[:12]}"
        if not context.will_change(UNIT_FILE) and not Path(UNIT_FILE).exists():
            return  # its files were refused, which was said: nothing can be built
        release = stack_store.current()
        if context.will_change(vllm_source_store.CUDA, stack_store.STORE / stack_store.CURRENT):
            says = f"build {name} on the stack and CUDA environment of this run, {HINT}"
            yield Step(UNIT, says, self._start)
            return
        if not release or stack_store.read_manifest(stack_store.home(release)) is None:
            raise Refused("vllm_source: there is no stack on this host: the measure stack must be present")
        build = Build(request, key_of(request, release), release, self.uv)
        if current() == build.key and is_whole(build.key):
            return
        running = vllm_source_record.asked_for() if is_building() else ""
        record = read_record(build.key)
        if running == build.key:
            context.warnings.append(f"{name} is being built{progress(record)}: {HINT.partition(': ')[2]}")
            return
        self._possible(build, context)
        yield Step(UNIT, f"{what_to_do(name, build.key, running, record)} {HINT}", self._start)

    def units(self) -> Sequence[str]:
        return (SLICE, UNIT)

    def _possible(self, build: Build, context: Context) -> None:
        """Raises Refused where it cannot be built, or would have no cap."""
        coming = context.will_change(self.uv)
        wrong = [line for line in vllm_source_check.wrong(build) if not (coming and self.uv in line)]
        if not context.will_change(SLICE_FILE):
            limit = show(SLICE, "MemoryMax").get("MemoryMax", "")
            if not limit.isdecimal():
                wrong.append(f"{SLICE} has no MemoryMax: the measure training_slice must be present")
            elif int(limit) <= self.memory_max:
                wrong.append(
                    f"vllm_source.memory_max of {self.memory_max >> 20} MiB is not less than the "
                    f"{int(limit) >> 20} MiB of {SLICE}: lower it, so that jobs have something left"
                )
        if wrong:
            raise Refused(f"vllm_source: {'; '.join(wrong)}")

    def _start(self) -> None:
        request = Request(**self.request)
        release = stack_store.current()
        if is_building():
            run("systemctl", "stop", UNIT)
        with contextlib.suppress(Failed):  # it has not failed
            run("systemctl", "reset-failed", UNIT)
        make_directories(vllm_source_store.STORE)  # the unit may write to what is there
        vllm_source_record.ask_for(key_of(request, release))
        run("systemctl", "start", "--no-block", UNIT)


def what_to_do(name: str, key: str, running: str, record: Record | None) -> str:
    """For a build that is not there. `running`: another one that runs now, or ""."""
    if running:
        return f"stop the build {running}, and build {name}"
    if stopped := record.stopped if record else None:
        return f"go on to build {name} at the step {stopped.name}{why(stopped.note)}"
    if current() == key:
        return f"build {name} anew, since files of {home(key)} were changed,"
    return f"build {name}"


def progress(record: Record | None) -> str:
    """Where a build is, for a sentence."""
    step = record.stopped if record else None
    return f" (step {step.name} since {step.started})" if step else ""


def why(note: str) -> str:
    return f" ({note})" if note else ""


@dataclass(frozen=True)
class VllmOld(Resource):
    """No build but the one in use, once no process uses it."""

    kind: ClassVar[str] = "vllm_source_old"
    after_reload: ClassVar[bool] = True

    def steps(self, context: Context) -> Iterator[Step]:
        others = [key for key in vllm_source_store.builds() if key not in (current(), vllm_source_record.asked_for())]
        for key in others:
            used = list(vllm_source_store.users(key))
            if used:
                pids = ", ".join(map(str, used[:MOST_NAMED]))
                context.warnings.append(f"{home(key)} stays: {len(used)} processes use it (PID {pids})")
            else:
                yield Step(str(home(key)), "remove the old build of vLLM", partial(remove, key))
