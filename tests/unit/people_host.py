"""Runs deploys of people on real accounts, with real tools, in a mount namespace with an /etc and a /home of its own.

Called by test_people.py as `python people_host.py KIND`, as root, inside of `unshare --mount`. Prints JSON.
"""

from __future__ import annotations

import ctypes
import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "files" / "host"))

from sparkhost.base import converge
from sparkhost.base.files import File
from sparkhost.training_slice import people, people_keys
from sparkhost.training_slice.people import TrainingPeople

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl "


def enclose(folder: Path) -> None:
    """What is changed from here on is this process's own."""
    mount("--make-rprivate", "/")
    shutil.copytree("/etc", folder / "etc", symlinks=True)
    mount("--bind", str(folder / "etc"), "/etc")
    mount("-t", "tmpfs", "none", "/home")
    people.RECORD = folder / "training-people.json"
    people_keys.PATIENCE = 1.0


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def deploy(users: dict[str, list[str]], *, wanted: bool = True) -> dict[str, Any]:
    """Applies the people, and a file after them; what the measure answers, and what then stands."""
    last = File("/home/last", "managed by sparkfleet\n")
    Path(last.path).unlink(missing_ok=True)
    resources = [TrainingPeople("trainers", users, [], wanted=wanted).to_json(), last.to_json()]
    started = time.monotonic()
    request = {"action": "apply", "modules": [], "measures": [{"name": "x", "resources": resources}]}
    found = converge.run(request)["applied"]
    return {
        "error": found["error"],
        "seconds": time.monotonic() - started,
        "went on": Path(last.path).exists(),
        "members": sorted(grp.getgrnam("trainers").gr_mem) if people.exists("trainers") else None,
        "keys": {name: keys_of(name) for name in ("ann", "bob", "eve") if people.user(name)},
        "expire": {name: people.expires(name) for name in ("ann", "bob", "eve") if people.user(name)},
    }


def keys_of(name: str) -> int | None:
    path = Path(pwd.getpwnam(name).pw_dir, ".ssh", "authorized_keys")
    if name == "eve":
        return None  # hers are the ones that cannot be read
    return path.read_text().count("ssh-ed25519") if path.exists() else 0


def attack(kind: str) -> None:
    """What eve does with her keys, with no right but her own; but for the mount, which fusermount(1) does for her."""
    eve = pwd.getpwnam("eve")
    keys = Path(eve.pw_dir, ".ssh", "authorized_keys")
    keys.unlink()
    if kind == "zero":
        keys.symlink_to("/dev/zero")
    elif kind == "holes":
        with keys.open("wb") as stream:
            stream.truncate(100 * 2**30)
    elif kind == "fifo":
        os.mkfifo(keys)
    elif kind == "unreadable":
        keys.touch(mode=0)
    elif kind == "locked directory":
        keys.parent.chmod(0)
    elif kind == "garbage":
        keys.write_bytes(os.urandom(1000))
    elif kind == "stalled":
        # A file system whose server never answers.
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={server},rootmode=40000,user_id={eve.pw_uid},group_id={eve.pw_gid}"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"eve", bytes(keys.parent), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount")
    for path in (keys.parent, keys) if kind != "stalled" else ():
        if os.path.lexists(path):
            os.chown(path, eve.pw_uid, eve.pw_gid, follow_symlinks=False)


def main(kind: str, folder: Path) -> None:
    enclose(folder)
    told = [deploy({"ann": [KEY + "ann"], "eve": [KEY + "eve"]})]
    attack(kind)
    told += [deploy({"bob": [KEY + "bob"], "eve": [KEY + "eve2"]}), deploy({}, wanted=False)]
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"told": told, "peak": peak}))
    sys.stdout.flush()
    os._exit(0)  # nothing waits for what hangs


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
