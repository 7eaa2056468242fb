"""What the playbook copies: the same rendered files that our deploy writes, from the same sources.

Only contents are generated, never tasks: `site.yml` is written by hand. One directory a set of settings:

    files/ABSOLUTE/PATH    as it is on the host
    archives/NAME.tar.gz   the modules of an installed program
    vars.json              what site.yml loops over, by measure
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkfleet.host_sources import HOST, closure
from sparkfleet.settings import HostSettings
from sparkhost.cuda_env.environment import environment_lines
from sparkhost.training_slice.docker import merged
from tasks import cuda_env, hardware_watchdog, ssh, stack, swap, tools, training_slice, uv, watchdog
from tasks.lib.wanted import wanted

MEASURES = (swap, cuda_env, uv, stack, tools, training_slice, watchdog, hardware_watchdog, ssh)
FILES = {"file", "file_with", "cap_file", "checked_file"}
"""Kinds of resources that are one file with a content, on every host of these settings."""
# On every Ubuntu and Debian host: nobody writes a task for these.
STOCK = {"/etc/profile.d", "/etc/systemd/system", "/usr/local/bin", "/usr/share/pam-configs"}


def resources(settings: HostSettings) -> dict[str, list[dict[str, Any]]]:
    """By measure what a deploy would bring a host to, with what stands under guard beside the rest."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in wanted(settings.model_dump(mode="json"), MEASURES, local=False).measures:
        name = entry["name"].partition(" ")[0]
        found.setdefault(name, []).extend(flat(entry["resources"]))
    return found


def flat(listed: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for resource in listed:
        yield resource
        yield from flat(resource.get("resources", ()))


def directories(paths: Iterable[str]) -> list[str]:
    """The directories that these files need and a stock host lacks, a parent before what is in it."""
    found = {str(parent) for path in paths for parent in Path(path).parents if len(parent.parts) > 2}
    return sorted(found - STOCK - {"/usr/local", "/usr/share", "/etc/systemd"})


def write(settings: HostSettings, directory: Path, wheels: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Writes all of it, and returns what vars.json holds. `wheels`: SHA-256 → file, for a run on real hosts.

    Raises:
        OSError: the directory cannot be written.
    """
    by_measure = resources(settings)
    files: dict[str, list[dict[str, str]]] = {}
    programs: dict[str, list[dict[str, str]]] = {}
    for measure, listed in by_measure.items():
        for resource in listed:
            if resource["kind"] in FILES:
                files.setdefault(measure, []).append(as_file(resource, directory))
            elif resource["kind"] == "installed":
                name, digest = resource["name"], resource["digest"]
                archive(directory / "archives" / f"{name}.tar.gz", resource["modules"])
                programs.setdefault(measure, []).append({"name": name, "digest": digest})
            elif resource["kind"] == "per_connection_file":
                files.setdefault("ssh_per_connection", []).append(as_file(resource, directory))
            elif resource["kind"] == "pam_profile":
                files.setdefault("ssh_pam", []).append(as_file({**resource, "mode": 0o644}, directory))
    uv_links = [resource for resource in by_measure["uv"] if resource["kind"] == "link"]
    for machine, digest in one(by_measure["uv"], "uv_binary")["sha256"].items():
        if digest in (wheels or {}):
            unpack_uv((wheels or {})[digest], directory / "archives" / f"uv-{machine}.tar.gz")
    values = {
        "files": files,
        "programs": programs,
        "absent": {m: [r["path"] for r in listed if r["kind"] == "no_file"] for m, listed in by_measure.items()},
        "directories": directories(
            [*(entry["dest"] for listed in files.values() for entry in listed), *(r["target"] for r in uv_links)]
        ),
        "cuda": cuda(by_measure["cuda_env"], directory),
        "uv": uv_values(by_measure["uv"]),
        "stack": stack_values(by_measure["stack"], directory),
        "docker": merged("", cgroup_parent=training_slice.SLICE, live_restore=True),
        "people": people(by_measure["training_slice"]),
        "exception": exception(by_measure["training_slice"], directory),
        "wheels": {digest: str(path) for digest, path in (wheels or {}).items()},
    }
    (directory / "vars.json").write_text(json.dumps({"sparkfleet": values}, indent=1) + "\n")
    return values


def as_file(resource: Mapping[str, Any], directory: Path) -> dict[str, str]:
    path = directory / "files" / resource["path"].lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(resource["content"])
    return {"src": str(path), "dest": resource["path"], "mode": f"0{resource['mode']:o}"}


def archive(path: Path, modules: Mapping[str, str]) -> None:
    """A tar archive with files of mode 0644."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as out:
        for name, source in modules.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(source.encode()), 0o644
            out.addfile(entry, io.BytesIO(source.encode()))


def unpack_uv(wheel: Path, path: Path) -> None:
    """A tar archive with the programs of uv's wheel."""
    with zipfile.ZipFile(wheel) as packed, tarfile.open(path, "w:gz", compresslevel=1) as out:
        for info in packed.infolist():
            if "/scripts/" in info.filename and not info.is_dir():
                entry = tarfile.TarInfo(info.filename.rpartition("/")[2])
                entry.size, entry.mode = info.file_size, 0o755
                out.addfile(entry, packed.open(info))


def one(listed: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(resource for resource in listed if resource["kind"] == kind)


def cuda(listed: Sequence[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """The block for /etc/environment of a host that sets no more than a PATH there, and the file for services."""
    block, services = one(listed, "environment_block"), one(listed, "environment_file")
    lines = "\n".join(environment_lines("", block["values"], block["front"]))
    resource = {"path": services["path"], "content": f"{services['header']}{lines}\n", "mode": 0o644}
    return {"home": block["needs"], "block": lines, "services": as_file(resource, directory)}


def uv_values(listed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    binary = one(listed, "uv_binary")
    links = [{"path": r["path"], "target": r["target"]} for r in listed if r["kind"] == "link"]
    return {"version": binary["version"], "sha256": binary["sha256"], "links": links}


def stack_values(listed: Sequence[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """The locks, and an archive with the code that builds a release: its manifest is ours, and so is who writes it."""
    release = one(listed, "stack_release")
    builder = closure([HOST / "sparkhost" / name for name in ("__init__.py", "stack/build.py")])
    archive(directory / "archives" / "stack_build.tar.gz", builder)
    return {key: release[key] for key in ("profile", "locks", "interpreter", "uv")}


def people(listed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = one(listed, "training_people")
    return {"group": found["group"], "members": found["members"], "users": found["users"]}


def exception(listed: Sequence[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """The drop-in that excepts admins, and the groups whose members they are."""
    found = one(listed, "cap_exceptions")
    resource = {"path": f"/{found['name']}", "content": found["content"], "mode": 0o644}
    return {"name": found["name"], "groups": found["groups"], "src": as_file(resource, directory)["src"]}
