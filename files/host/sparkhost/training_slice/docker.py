"""Docker's containers under a slice, by daemon.json: without it they are in system.slice, and no user's cap holds them.

`live-restore` comes first, by a reload, and only then a restart for `cgroup-parent`: running containers live on.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparkhost.base import bounded, strict_json
from sparkhost.base.diff import text_diff
from sparkhost.base.files import make_directories, read_regular, write_atomic
from sparkhost.base.pid1 import run, show, time_of
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step
from sparkhost.base.systemd import UNIT_DIRECTORY, changed_at

DAEMON_JSON = Path("/etc/docker/daemon.json")
# What the two keys were before us: {"cgroup-parent": null, "live-restore": true}; null stands for none.
RECORD = Path("/var/lib/sparkfleet/docker-before.json")
SERVICE = "docker.service"
# Keys that are looked at here: their types, as dockerd wants them.
TYPES: dict[str, tuple[type, str]] = {
    "cgroup-parent": (str, "a text"),
    "live-restore": (bool, "true or false"),
    "exec-opts": (list, "a list of texts"),
}
PATIENCE = 30.0
"""Seconds that a reload may take."""


def installed() -> bool:
    return shutil.which("dockerd") is not None


def parsed(text: str) -> dict[str, Any]:
    """What daemon.json says; an empty one says nothing, for dockerd as well.

    Raises:
        Refused: it is not a JSON mapping, or one that would not survive being written again.
    """
    remedy = "mend it, or set training_slice.docker to keep"
    try:
        value = strict_json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise Refused(f"{DAEMON_JSON} is not JSON that can be edited ({error}): {remedy}") from error
    if not isinstance(value, dict):
        raise Refused(f"{DAEMON_JSON} is no mapping but {text.strip()[:20]!r}: {remedy}")
    for name, (kind, words) in TYPES.items():
        found = value.get(name)
        if name in value and not (is_text_list(found) if kind is list else isinstance(found, kind)):
            raise Refused(f"{DAEMON_JSON}: {name}: got {json.dumps(found)[:60]}, expected {words}: {remedy}")
    return value


def is_text_list(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(value, str) for value in found)


def merged(text: str, **keys: Any) -> str:
    """daemon.json with these keys set, or taken out where the value is None; all others stay as they are.

    Raises:
        Refused: see `parsed`.
    """
    value = parsed(text)
    wanted = {name.replace("_", "-"): item for name, item in keys.items()}
    result = {name: item for name, item in value.items() if wanted.get(name, item) is not None or name not in wanted}
    result |= {name: item for name, item in wanted.items() if item is not None}
    if result == value:
        return text
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n" if result else ""


def objection(config: dict[str, Any], command: str, slice_: str, swarm: str) -> str | None:
    """Why containers cannot be put under the slice, or None. `command`: docker.service's ExecStart."""
    if swarm not in ("inactive", ""):
        return "docker is in swarm mode, which refuses live-restore: a restart would stop all containers"
    parent = config.get("cgroup-parent", slice_)
    if parent != slice_:
        return f"{DAEMON_JSON} has cgroup-parent {parent!r}, which is somebody's wish"
    if "native.cgroupdriver=cgroupfs" in config.get("exec-opts", ()) or "cgroupdriver=cgroupfs" in command:
        return "docker uses the cgroup driver cgroupfs, which knows no slices"
    for flag in ("--cgroup-parent", "--live-restore"):
        if flag in command:
            return f"{SERVICE} gives dockerd {flag}, which must not be in {DAEMON_JSON} as well"
    return None


def current() -> str:
    content = read_regular(DAEMON_JSON)
    return "" if content is None else content.decode(errors="surrogateescape")


def write(text: str) -> None:
    """Puts a new daemon.json in its place once dockerd itself has found it valid, where it knows how to."""
    make_directories(DAEMON_JSON.parent)
    if not text:
        DAEMON_JSON.unlink(missing_ok=True)
        return
    content = text.encode(errors="surrogateescape")
    trial = DAEMON_JSON.with_name("daemon.json.sparkfleet-trial")
    write_atomic(trial, content, 0o600)  # there may be a proxy's password in it
    try:
        if "--validate" in run("dockerd", "--help"):  # since 23.0; Debian 12 has 20.10
            run("dockerd", "--validate", "--config-file", str(trial))
    finally:
        trial.unlink()
    mode, uid, gid = 0o644, 0, 0
    if DAEMON_JSON.exists():
        status = DAEMON_JSON.stat()
        mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    write_atomic(DAEMON_JSON, content, mode, uid, gid)


def read_record() -> dict[str, Any]:
    """What the two keys were before us. Raises Failed."""
    try:
        found = strict_json.loads(bounded.read_text(RECORD))
        parent, live = found["cgroup-parent"], found["live-restore"]
    except (ValueError, TypeError, KeyError) as error:
        raise damaged() from error
    if not isinstance(parent, str | None) or not isinstance(live, bool | None):
        raise damaged()
    return {"cgroup-parent": parent, "live-restore": live}


def damaged() -> Failed:
    return Failed(f"{RECORD} is damaged: take our keys out of {DAEMON_JSON} by hand, remove it, and deploy again")


def is_active() -> bool:
    return show(SERVICE, "ActiveState").get("ActiveState") == "active"


def info(field: str) -> str:
    """A field of `docker info`, such as .LiveRestoreEnabled."""
    return run("docker", "info", "--format", f"{{{{{field}}}}}").strip()


def started_before_the_file() -> bool:
    """Whether dockerd runs since before daemon.json last changed: it reads cgroup-parent only when it starts."""
    since = time_of(SERVICE, "ActiveEnterTimestamp")
    return since < changed_at(DAEMON_JSON)


def set_live_restore(wanted: bool) -> None:
    """Has the running daemon take it over; without it a restart would stop every container."""
    run("systemctl", "reload", SERVICE)
    until = time.monotonic() + PATIENCE
    while info(".LiveRestoreEnabled") != str(wanted).lower():
        if time.monotonic() > until:
            raise Failed(
                "docker did not take live-restore over from daemon.json: not restarted, see journalctl -u docker"
            )
        time.sleep(0.2)


def outside(slice_: str, root: Path = Path("/sys/fs/cgroup")) -> list[str]:
    """Containers of Docker in system.slice: they are where they were started until they are started anew."""
    return sorted(path.name for path in (root / "system.slice").glob("docker-*.scope"))


@dataclass(frozen=True)
class DockerParent(Resource):
    """New containers are started under the slice, unless they name another (`docker run --cgroup-parent`)."""

    kind: ClassVar[str] = "docker_parent"
    after_reload: ClassVar[bool] = True
    slice: str

    def units(self) -> Sequence[str]:
        return (SERVICE,) if installed() else ()

    def steps(self, context: Context) -> Iterator[Step]:
        unit = f"{UNIT_DIRECTORY}/{self.slice}"
        if not installed() or not (Path(unit).exists() or context.will_change(unit)):
            return  # without its file, which was refused, the slice has no cap
        if shutil.which("podman"):
            context.warnings.append(
                f"podman is installed: containers that root starts with it need --cgroup-parent={self.slice}, "
                "containers.conf(5) has no setting for that; those of users are held by the cap of their sessions"
            )
        old = current()
        new = merged(old, cgroup_parent=self.slice, live_restore=True)
        active = is_active()
        swarm = info(".Swarm.LocalNodeState") if active else ""
        command = show(SERVICE, "ExecStart").get("ExecStart", "")
        if reason := objection(parsed(old), command, self.slice, swarm):
            raise Refused(f"{reason}: containers stay where they are; see training_slice.docker")
        if stray := outside(self.slice):
            context.warnings.append(
                f"{len(stray)} containers run outside of {self.slice} until they are started anew: {', '.join(stray)}"
            )
        if new != old:
            diff = text_diff(str(DAEMON_JSON), old.encode(errors="replace"), new.encode(errors="replace"))
            how = ", reload docker for live-restore, then restart it" if active else ""
            yield Step(str(DAEMON_JSON), f"set cgroup-parent and live-restore{how}", self._set, diff)
        elif active and started_before_the_file():
            yield Step(SERVICE, "restart: it has not read cgroup-parent yet", self._set)

    def _set(self) -> None:
        old = current()
        before = parsed(old)
        if not RECORD.exists():
            make_directories(RECORD.parent)
            kept = {key: before.get(key) for key in ("cgroup-parent", "live-restore")}
            write_atomic(RECORD, json.dumps(kept).encode(), 0o644)
        if is_active():
            try:
                write(merged(old, live_restore=True))
                set_live_restore(True)
            except Failed:
                with contextlib.suppress(Failed):
                    write(old)
                raise
        write(merged(current(), cgroup_parent=self.slice, live_restore=True))
        if is_active():
            run("systemctl", "restart", SERVICE)


@dataclass(frozen=True)
class NoDockerParent(Resource):
    """daemon.json without what we put there: what was there before us comes back, what others set since stays."""

    kind: ClassVar[str] = "no_docker_parent"
    slice: str

    def _without(self, old: str) -> str:
        ours = parsed(old).get("cgroup-parent") == self.slice
        return merged(old, **({"cgroup_parent": read_record()["cgroup-parent"]} if ours else {}))

    def steps(self, context: Context) -> Iterator[Step]:
        if not installed() or not RECORD.exists():
            return
        read_record()
        parsed(current())
        says = "take out cgroup-parent and live-restore, as far as they are ours"
        yield Step(str(DAEMON_JSON), says, self._put_back)

    def _put_back(self) -> None:
        before = read_record()
        write(self._without(current()))
        if is_active():
            run("systemctl", "restart", SERVICE)  # while live-restore is still on
        write(merged(current(), live_restore=before["live-restore"]))
        if is_active() and not before["live-restore"]:
            run("systemctl", "reload", SERVICE)
        RECORD.unlink()
