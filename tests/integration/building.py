"""What vLLM is built from on lab hosts: a checkout with its layout and wheels, made here and brought there.

The stand-ins of tests/unit/vllm_checkout.py, without torch, which the stack of lab hosts does not have.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.watching import until
from tests.lab import Host
from tests.unit.stack_wheels import wheel
from tests.unit.vllm_checkout import BACKEND, checkout_files, git

REPOSITORY, WHEELS = "/srv/vllm", "/srv/wheels"
UNIT = "sparkfleet-vllm-source.service"
GATE = "/srv/gate"
"""A FIFO, where a test has made one: the second object waits for a writer."""
# From the mirror that the host's apt knows.
INSTALL = """\
set -e
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends gcc g++ git make libc6-dev python3-dev
"""


class Material:
    """A repository and wheels on this machine, and copies of them on hosts."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.wheels = folder / "vllm", folder / "wheels"
        for path in (self.repository, self.wheels):
            path.mkdir(parents=True)
        wheel(self.wheels, "tiny-builder", "1.0", {"tiny_builder.py": BACKEND.encode()})
        wheel(self.wheels, "beta")
        git(self.repository, "init", "--quiet", "--initial-branch=main")

    def commit(self, changed: Mapping[str, str] | None = None) -> str:
        """A commit with the files of a checkout, and these changed; its id."""
        plain = {"requirements/common.txt": "tqdm\nbeta>=1.0\n"}
        for name, text in {**checkout_files(Path(GATE)), **plain, **(changed or {})}.items():
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(self.repository, "add", "--all")
        git(self.repository, "commit", "--quiet", "--allow-empty", "--message", "A commit")
        return git(self.repository, "rev-parse", "HEAD")

    def bring(self, host: Host) -> None:
        """Puts the repository as it is now, and the wheels, on a host."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for source, target in ((self.repository, REPOSITORY), (self.wheels, WHEELS)):
                archive.add(source, target.removeprefix("/srv/"))
        unpack = f"rm -rf {REPOSITORY} {WHEELS}; mkdir -p /srv; base64 -d | tar -C /srv --no-same-owner -xz"
        host.sudo(unpack, input=base64.b64encode(packed.getvalue()).decode())


def with_tools(host: Host) -> None:
    """Installs what a build needs of the distribution."""
    host.sudo(INSTALL, timeout=580)


def settings(commit: str, **more: Any) -> dict[str, Any]:
    """The measure on a lab host of 1.5 GiB: below a slice of 600 MiB."""
    sizes = {"memory_per_job": "64MiB", "memory_max": "400MiB", "reserve": "200MiB", "max_jobs": 2}
    return {"state": "present", "repository": REPOSITORY, "index": WHEELS, "commit": commit, **sizes, **more}


def finished(host: Host) -> str:
    """Waits until no build runs; what `spark-vllm-source` then says."""
    runs = f"systemctl show -P ActiveState {UNIT} | grep -q activating || systemctl list-jobs | grep -q {UNIT}"
    until(host, f"! {{ {runs}; }}", 300)
    return host.run("spark-vllm-source status", user="alice", check=False).stdout
