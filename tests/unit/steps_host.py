"""A small host in a directory: files, and doubles of systemd, PAM, Docker and the like that keep what they are told.

Each double is the same program by another name; its state is one file of JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("systemctl", "busctl", "systemd-run", "systemd-escape", "ldconfig", "pam-auth-update", "docker", "dockerd")
PROGRAM = """#!/usr/bin/python3 -IS
import json, os, sys, time
state = json.load(open({state!r}))
units, name, args = state["units"], os.path.basename(sys.argv[0]), sys.argv[1:]
def now():
    at = time.time() + 1  # after whatever was written before it
    return time.strftime("Mon %Y-%m-%d %H:%M:%S", time.gmtime(at)) + ".%06d UTC" % (at % 1 * 1e6)
def started(unit):
    units[unit] |= dict(ActiveState="active", LoadState="loaded")
    units[unit] |= dict(ActiveEnterTimestamp=now(), ExecMainStartTimestamp=now())
match [name, *[arg for arg in args if not arg.startswith("--") or arg == "--now"]]:
    case ["systemctl", "show", "-p", "UnitsLoadTimestamp,UnitsLoadStartTimestamp"]:
        print("UnitsLoadTimestamp=" + state["loaded"])
    case ["systemctl", "show", "-p", "FragmentPath,DropInPaths", *_]:
        print("FragmentPath=" + " ".join(state["known"]))
    case ["systemctl", "show", "-p", wanted, *asked]:
        blocks = [units.get(unit, dict(LoadState="not-found")) for unit in asked]
        print("\\n\\n".join("\\n".join(k + "=" + b[k] for k in wanted.split(",") if k in b) for b in blocks))
    case ["systemctl", "list-units", *_]:
        print("\\n".join(unit + " loaded" for unit in units if unit.startswith("user@")))
    case ["systemctl", "daemon-reload"]:
        state["loaded"], state["known"] = now(), []
        for unit in units:
            there = filter(os.path.exists, units[unit].get("DropInPaths", "").split())
            units[unit] |= dict(NeedDaemonReload="no", DropInPaths=" ".join(there))
    case ["systemctl", "enable", unit]:
        units[unit] |= dict(UnitFileState="enabled")
    case ["systemctl", "disable", "--now", unit]:
        units[unit] |= dict(UnitFileState="disabled", ActiveState="inactive")
    case ["systemctl", "start" | "restart", unit]:
        units.setdefault(unit, dict())
        started(unit)
    case ["systemd-run", *_]:
        for path, text in state["kernel"].items():
            open(path, "w").write(text)
    case ["busctl", "get-property", *_]:
        print("t", state["timer"])
    case ["busctl", "set-property", *_, value]:
        state["timer"] = int(value)
    case ["ldconfig", "-p"] | ["systemctl", "reload", _] | ["busctl", "call", *_] | ["dockerd", *_]:
        pass
    case ["systemd-escape", *_]:
        print("x.swap")
    case ["ldconfig"]:
        open(state["cache"], "w").close()
    case ["pam-auth-update", *_]:
        stack = open(state["stack"]).read()
        hook = "session optional hook\\n"
        open(state["stack"], "w").write(stack.replace(hook, "") + (hook if "--enable" in args else ""))
    case ["docker", "info", "{{{{.LiveRestoreEnabled}}}}"]:
        print("true")
    case ["docker", "info", what]:
        print(os.path.dirname({state!r}) if "Root" in what else "inactive")
    case ["docker", "image", "inspect", image]:
        sys.exit(image not in state["images"])
    case ["docker", "pull", image]:
        state["images"].append(image)
    case ["docker", "image", "rm", image]:
        state["images"].remove(image)
    case ["docker", "ps", *_]:
        pass
    case unknown:
        sys.exit("the double does not know: " + repr(unknown))
json.dump(state, open({state!r}, "w"))
"""
LONG_AGO = "Mon 2020-01-06 00:00:00.000000 UTC"


class Host:
    """Where the doubles keep their state, and files lie."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state.json"
        (root / "bin").mkdir()
        for name in NAMES:
            path = root / "bin" / name
            path.write_text(PROGRAM.format(state=str(self.state)))
            path.chmod(0o755)
        self.tell(units={}, known=[], loaded=LONG_AGO, kernel={}, timer=0, images=[], cache="", stack="/dev/null")

    def tell(self, **values: Any) -> None:
        """Sets what the doubles know."""
        known = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.state.write_text(json.dumps(known | values))

    def unit(self, name: str, **values: str) -> None:
        """A unit that is loaded and runs."""
        units = json.loads(self.state.read_text())["units"]
        first = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "DropInPaths": ""}
        times = {"ExecMainStartTimestamp": LONG_AGO, "ActiveEnterTimestamp": LONG_AGO}
        self.tell(units={**units, name: {**first, **times, "FragmentPath": "", "NeedDaemonReload": "no", **values}})

    def write(self, path: str, text: str = "") -> Path:
        there = self.root / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        return there

    def all(self) -> dict[str, object]:
        """Everything on it: content and mode of files, targets of links, folders, and what the doubles know."""
        return dict(self._all())

    def _all(self) -> Iterator[tuple[str, object]]:
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                yield name, os.fspath(path.readlink())
            elif path.is_file():
                yield (
                    name,
                    (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns if path != self.state else 0),
                )
            else:
                yield name, "folder"
