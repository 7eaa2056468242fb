"""Keys and passwords of one lab, made on the controller, and the seed disk that takes them to a host."""

from __future__ import annotations

import secrets as random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.errors import LabError
from tests.lab.image import archive
from tests.lab.profiles import ADMIN, TRAINEES

if TYPE_CHECKING:
    from tests.lab.lab import Lab

HOST_KEYS = ("ed25519", "ecdsa", "rsa")


def key(path: Path, kind: str, comment: str) -> None:
    """Make the SSH key pair `path` where there is none."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    for left in (fresh, Path(f"{fresh}.pub")):
        left.unlink(missing_ok=True)
    done = subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(fresh)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"ssh-keygen cannot make {path}: {done.stderr.strip()}")
    Path(f"{fresh}.pub").rename(f"{path}.pub")
    fresh.rename(path)


def password(path: Path) -> str:
    """The password in `path` (0600), made where there is none."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(random.token_urlsafe(15) + "\n")
        fresh.rename(path)
    return path.read_text().strip()


def host_keys(directory: Path, name: str) -> dict[str, Path]:
    """The host's key pairs by kind, made where there are none."""
    made = {kind: directory / "keys" / f"ssh_host_{kind}_key" for kind in HOST_KEYS}
    for kind, path in made.items():
        key(path, kind, f"root@{name}")
    return made


def known_hosts(ports: dict[int, dict[str, Path]]) -> str:
    """known_hosts text that pins each port's host keys."""
    lines = []
    for port, keys in ports.items():
        for path in keys.values():
            kind, data, *_ = Path(f"{path}.pub").read_text().split()
            lines.append(f"[127.0.0.1]:{port} {kind} {data}")
    return "\n".join(lines) + "\n"


def seed(lab: Lab, name: str) -> bytes:
    """The seed disk of host `name`: a tar archive that its first boot unpacks over `/`."""
    keys = host_keys(lab.directory / "hosts" / name, name)
    hosts = f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n"
    entries: dict[str, tuple[int, str]] = {
        "etc/hostname": (0o644, f"{name}\n"),
        "etc/hosts": (0o644, hosts),
        "seed/passwords": (0o600, f"{ADMIN}:{lab.admin_password}\n"),
    }
    for kind, path in keys.items():
        entries[f"etc/ssh/ssh_host_{kind}_key"] = (0o600, path.read_text())
        entries[f"etc/ssh/ssh_host_{kind}_key.pub"] = (0o644, Path(f"{path}.pub").read_text())
    for user, public in [(ADMIN, lab.admin_key), *((trainee, lab.user_key) for trainee in TRAINEES)]:
        entries[f"seed/{user}.pub"] = (0o644, Path(f"{public}.pub").read_text())
    return archive(entries)
