"""What Ansible's modules answer on a host where nothing differs, made up: for a simulation without a recording.

The fields that action plugins and the playbook look at are as the modules document them. Real answers are longer (the
`status` of systemd_service alone has 300 properties), so that a controller has less to read here: in Ansible's favour.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MACHINE = "aarch64"
GROUPS = {"root": ["x", "0", ""], "sudo": ["x", "27", "admin"], "training": ["x", "998", "alice,bob"]}
PASSWD = {"root": ["x", "0", "0", "root", "/root", "/bin/bash"], "admin": ["x", "1000", "1000", "", "/home/admin", ""]}
COMMANDS = {"systemctl show -P Accept ssh.socket": "no", "swapon --show=NAME --noheadings": ""}


class NoAnswer(Exception):
    """A module with arguments that a converged host is never asked. One line."""


class Converged:
    """A host on which everything is as `vars.json` of `generate` says."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        values = variables["sparkfleet"]
        listed = [entry for part in values["files"].values() for entry in part]
        listed += [values["cuda"]["services"]]
        exception = values["exception"]
        for uid in ("0", "1000"):
            name = f"/etc/systemd/system/user-{uid}.slice.d/{exception['name']}"
            listed.append({"src": exception["src"], "dest": name, "mode": "0644"})
        self.files = {entry["dest"]: (sha1(Path(entry["src"])), entry["mode"]) for entry in listed}
        self.modules: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "setup": lambda _: {"ansible_facts": {"ansible_architecture": MACHINE, "ansible_user_uid": 0}},
            "stat": self.stat,
            "file": self.file,
            "replace": lambda given: {"changed": False, "msg": "", "path": given["path"], "rc": 0},
            "blockinfile": lambda _: {"changed": False, "msg": ""},
            "command": command,
            "group": lambda given: {"changed": False, "name": given["name"], "gid": 998, "state": "present"},
            "user": lambda given: {"changed": False, "name": given["name"], "uid": 1001, "state": "present"},
            "getent": getent,
            "systemd_service": service,
            "systemd": service,
        }

    def answer(self, key: str) -> str:
        """The answer to a module as `payload.module_of` names it.

        Raises:
            NoAnswer: nothing is known of it.
        """
        name, _, arguments = key.partition(" ")
        module = name.rpartition(".")[2]
        if module not in self.modules:
            raise NoAnswer(f"no plausible answer for {key}")
        given = json.loads(arguments)
        return json.dumps({"changed": False, "invocation": {"module_args": given}, **self.modules[module](given)})

    def stat(self, given: dict[str, Any]) -> dict[str, Any]:
        path = given["path"].rstrip("/")
        if path == "/usr/bin/dockerd":
            return {"stat": {"exists": False}}
        found = {"exists": True, "path": path, "uid": 0, "gid": 0, "pw_name": "root", "gr_name": "root", "islnk": False}
        if path in self.files:
            checksum, mode = self.files[path]
            return {"stat": {**found, "isreg": True, "isdir": False, "checksum": checksum, "mode": mode}}
        return {"stat": {**found, "isreg": False, "isdir": True, "mode": "0755"}}

    def file(self, given: dict[str, Any]) -> dict[str, Any]:
        where = {
            "path": given.get("path") or given.get("dest"),
            "owner": "root",
            "group": "root",
            "uid": 0,
            "gid": 0,
            "size": 0,
        }
        return {**where, "mode": given.get("mode"), "state": given.get("state") or "file", "diff": {}}


def sha1(path: Path) -> str:
    """As `stat` computes it for `copy`; no matter of security."""
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def command(given: dict[str, Any]) -> dict[str, Any]:
    line = given.get("_raw_params") or ""
    if line not in COMMANDS:
        raise NoAnswer(f"no plausible answer for the command {line!r}")
    moment = "2026-01-01 00:00:00.000000"
    ended = {"start": moment, "end": moment, "delta": "0:00:00.000000", "rc": 0, "msg": "", "stderr": ""}
    return {**ended, "changed": True, "cmd": line.split(), "stdout": COMMANDS[line]}


def getent(given: dict[str, Any]) -> dict[str, Any]:
    return {"ansible_facts": {f"getent_{given['database']}": GROUPS if given["database"] == "group" else PASSWD}}


def service(given: dict[str, Any]) -> dict[str, Any]:
    status = {"ActiveState": "active", "LoadState": "loaded", "UnitFileState": "enabled"}
    return {"name": given.get("name"), "enabled": given.get("enabled"), "state": given.get("state"), "status": status}
