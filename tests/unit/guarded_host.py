"""A small host in a directory for changes to SSH under guard, with doubles of systemd, sshd and pam-auth-update.

As a program (`python3 guarded_host.py ROOT change|change-only|take-back`) it does one part of a deploy there, so that
a tracer can fail any write of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HOST = Path(__file__).resolve().parents[2] / "files" / "host"
HOOK = "session optional pam_exec.so quiet /opt/sparkfleet/lib/killable-session"
DOUBLES = {
    "systemctl": '#!/bin/sh\necho "$*" >>{calls}\n[ "$1" = is-active ] || exit 0\n'
    "case $* in *ssh.service*) exit 0 ;; esac\nexit 3\n",
    "systemd-run": "#!/bin/sh\nexit 0\n",
    "logger": "#!/bin/sh\nexit 0\n",
    "sshd": "#!/bin/sh\nexit 0\n",
    # As the real one it replaces the stack's file by a new one, which keeps no attributes.
    "pam-auth-update": f"#!/bin/sh\nsed '$a {HOOK}' {{etc}}/pam.d/common-session >{{etc}}/pam.d/new.pam\n"
    "mv {etc}/pam.d/new.pam {etc}/pam.d/common-session\n",
}
LEFT = re.compile(r"\.sparkfleet-(new|old~)$|/sparkfleet-rollback-boot\.service$")
"""What a run that was killed before anything was armed may leave: files that nobody reads."""


def build(root: Path) -> None:
    """The host before the change."""
    files = {
        "etc/pam.d/common-session": "session required pam_unix.so\n",
        "etc/pam.d/sshd": "@include common-session\n",
        "etc/systemd/system/ssh.service.d/oom.conf": "# managed by sparkfleet\n[Service]\nMemoryMin=1\n",
        "etc/systemd/system/old.service.d/gone.conf": "# managed by sparkfleet\n",
        "etc/site.conf": "the site's own\n",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "etc/pam.d/common-session").chmod(0o640)
    (root / "etc/link.conf").symlink_to("/dev/null")
    (root / "bin").mkdir()
    for name, text in DOUBLES.items():
        (root / "bin" / name).write_text(
            text.replace("{etc}", str(root / "etc")).replace("{calls}", str(root / "bin/calls"))
        )
        (root / "bin" / name).chmod(0o755)


def environment(root: Path) -> dict[str, str]:
    return {"PATH": f"{root / 'bin'}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def snapshot(root: Path) -> dict[str, object]:
    """Every file and link of the host, with content, mode, and target; without what the guard itself keeps."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root)).replace(str(root)[1:], "")  # backups have their whole path below them
        if path.is_symlink():
            found[name] = os.fspath(path.readlink())
        elif path.is_file() and not name.startswith(("bin/", "var/lib/sparkfleet/rollback/")):
            found[name] = (path.read_bytes(), path.stat().st_mode)
    return found


def boots(root: Path) -> bool:
    """What PID 1 does at the next boot: the unit is run if it is linked and its condition holds. Says whether."""
    link = root / "etc/systemd/system/sysinit.target.wants/sparkfleet-rollback-boot.service"
    if not link.exists():
        return False
    settings = dict(line.split("=", 1) for line in link.read_text().splitlines() if "=" in line)
    if not list(Path("/").glob(settings["ConditionPathExistsGlob"].lstrip("/"))):
        return False
    subprocess.run(settings["ExecStart"].split(), env=environment(root), capture_output=True, timeout=60, check=False)
    return True


def command(root: Path, part: str) -> list[str]:
    return ["/usr/bin/python3", "-IS", "-B", __file__, str(root), part]


def main(root: Path, part: str) -> None:
    sys.path.insert(0, str(HOST))
    from sparkhost.base import files
    from sparkhost.base.files import File, NoFile
    from sparkhost.ssh import arming, pam, rollback, sshd, unproved
    from sparkhost.ssh.guard import Guarded, GuardStep
    from sparkhost.ssh.pam import PamProfile

    os.environ.update(environment(root))
    etc = root / "etc"
    unproved.DIRECTORY, files.BACKUPS = root / "var/lib/sparkfleet/rollback", root / "var/lib/sparkfleet/backup"
    arming.BOOT_UNIT = etc / "systemd/system/sparkfleet-rollback-boot.service"
    pam.STACKS, pam.STATE, pam.COMMON = etc / "pam.d", root / "var/lib/pam", etc / "pam.d/common-session"
    rollback.SSHD = sshd.SSHD = str(root / "bin/sshd")
    rollback.PROC, sshd.RUN = root / "proc", root / "run-sshd"
    if part == "take-back":
        with unproved.locked():
            sys.exit(not rollback.take_back("no login proved it").done)
    units = etc / "systemd/system"
    parts = [
        File(str(root / "opt/sparkfleet/lib/killable-session"), "#!/bin/sh\n# managed by sparkfleet\n", 0o755),
        PamProfile(str(root / "usr/share/pam-configs/sparkfleet-ssh"), "# managed by sparkfleet\n", HOOK, "sshd"),
        File(str(units / "ssh.service.d/oom.conf"), "# managed by sparkfleet\n[Service]\nMemoryMin=512\n"),
        File(str(units / "system.slice.d/50-sparkfleet.conf"), "# managed by sparkfleet\n"),
        File(str(etc / "site.conf"), "# managed by sparkfleet\n"),
        File(str(etc / "link.conf"), "# managed by sparkfleet\n"),
        NoFile(str(units / "old.service.d/gone.conf")),
    ]
    Guarded("run", [part.to_json() for part in parts], 60, True, -1000, []).apply()
    if part == "change":
        GuardStep("run", "confirm", []).apply()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
