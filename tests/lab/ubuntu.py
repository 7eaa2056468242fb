"""Ubuntu's archive keys, for a controller whose own distribution does not package them (Debian)."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from tests.lab import cache
from tests.lab.errors import LabError
from tests.lab.tools import MISSING

SYSTEM = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
_PACKAGE = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
_SHA256 = "80a36b0a6de2f69f49d2df75ef473ccde121e9e190b9ea01d20a4f63778d5c31"
"""Of the keyring file in that package: the archive keys of 2012 (790BC727…C0B21F32) and 2018 (F6ECB376…991BC93C)."""


def keyring(mirror: str | None) -> Path:
    """The keyring to check an Ubuntu mirror with: the system's, else the one in the mirror's own package, whose
    hash is pinned here, kept in the lab's cache.

    Raises LabError where there is no mirror to take it from, or what it serves is something else.
    """
    if SYSTEM.exists():
        return SYSTEM
    kept = cache.directory() / "ubuntu-archive-keyring.gpg"
    if kept.exists() and _sha256(kept) == _SHA256:
        return kept
    if mirror is None or shutil.which("dpkg-deb") is None:
        raise LabError("an Ubuntu host needs a mirror on this machine: set SPARKFLEET_LAB_MIRROR", MISSING)
    url = f"{mirror.rstrip('/')}/{_PACKAGE}"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        try:
            with urllib.request.urlopen(url, timeout=60) as source:
                (work / "keyring.deb").write_bytes(source.read())
        except OSError as error:
            raise LabError(f"cannot fetch Ubuntu's archive keys from {url}: {error}") from error
        unpacked = subprocess.run(
            ["dpkg-deb", "-x", str(work / "keyring.deb"), str(work / "root")], capture_output=True, check=False
        )
        found = work / "root" / SYSTEM.relative_to("/")
        if unpacked.returncode or not found.exists() or _sha256(found) != _SHA256:
            raise LabError(f"{url} does not hold the expected archive keys (sha256 {_SHA256[:16]}…)")
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(".new")
        shutil.copyfile(found, fresh)
        fresh.rename(kept)
    return kept


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
