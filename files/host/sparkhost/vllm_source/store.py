"""Where builds of vLLM lie on a host: one directory a build, `current` a link to one; and what is known of each.

/opt/sparkfleet/vllm-source/KEY is an environment that rests on a release of the stack: vLLM, and what it needs beyond
the stack, are its own; everything else it imports from the release. The key is made of all that decides what comes out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparkhost.base import bounded, installed
from sparkhost.base.resource import Failed
from sparkhost.cuda_env.environment import assignments
from sparkhost.stack import store as stack_store
from sparkhost.stack.hashes import hashes
from sparkhost.stack.verify import walk

STORE = Path("/opt/sparkfleet/vllm-source")
CURRENT = installed.CURRENT
MANIFEST = stack_store.MANIFEST
CUDA = Path("/etc/sparkfleet/cuda.env")
"""What the measure cuda_env gives to services."""
OF_CUDA = ("CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH")
LAYER = "sparkfleet-stack.pth"
"""In a build's site-packages: adds the release's behind its own."""
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Request:
    """What is to be built, as the fleet file says."""

    repository: str
    commit: str
    requirements: str | None
    index: str | None
    memory_per_job: int
    max_jobs: int
    reserve: int
    variables: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """What sparkfleet.json says of a build."""

    key: str
    commit: str
    stack: str
    """The release that it rests on."""
    distributions: dict[str, str]
    """Of its own: name → version."""
    fingerprint: str
    sums: str
    links: dict[str, str] = field(default_factory=dict)


def cuda_variables() -> dict[str, str]:
    """The CUDA environment of a build; none where the measure cuda_env is not there."""
    try:
        found = assignments(bounded.read_text(CUDA))
    except (Failed, OSError):
        return {}
    return {name: found[name] for name in OF_CUDA if name in found}


def variables_of(request: Request) -> dict[str, str]:
    """The variables that decide what is built."""
    return {**cuda_variables(), **request.variables}


def key_of(request: Request, release: str) -> str:
    """The name of the build of this request on a release: another one where anything that decides is another."""
    what = [request.commit, release, request.requirements, sorted(variables_of(request).items())]
    return f"{request.commit[:12]}-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]}"


def home(key: str) -> Path:
    return STORE / key


def builds() -> list[str]:
    """All that are installed, whole or damaged."""
    return sorted(installed.releases(STORE))


def current() -> str:
    """The build that `current` leads to; "" where there is none."""
    return installed.current(STORE)


def read_manifest(key: str) -> Manifest | None:
    """What a build is; None where it says nothing that can be understood."""
    try:
        values = json.loads(bounded.read_text(home(key) / MANIFEST))
        values.pop("_", None)
        return Manifest(**values)
    except (Failed, OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def write_manifest(root: Path, key: str, commit: str, stack: str, distributions: Mapping[str, str]) -> None:
    """Hashes all files of a build that was looked at, and notes it: SHA256SUMS is for `sha256sum -c`."""
    sums, links = stack_store.write_sums(root, hashes(root, sorted(walk(root))))
    manifest = Manifest(key, commit, stack, dict(distributions), stack_store.fingerprint(root), sums, links)
    stack_store.note(root, manifest, "vllm_source")


def is_whole(key: str) -> bool:
    """Whether lstat(2) says that nothing of a build was changed since it was looked at (see stack_store)."""
    manifest = read_manifest(key)
    return manifest is not None and stack_store.fingerprint(home(key)) == manifest.fingerprint


def changed(key: str) -> list[str]:
    """Every file that is not as it was when the build was installed, by content: all of it is read."""
    manifest = read_manifest(key)
    return stack_store.changed(home(key), manifest) if manifest else [f"its {MANIFEST} is missing or damaged"]


def users(key: str) -> Iterator[int]:
    """Processes that use a build. May be called as root only."""
    return stack_store.users_of(home(key))


def bases() -> Sequence[str]:
    """The releases of the stack that builds rest on: they stay as long as those do."""
    manifests = (read_manifest(key) for key in builds())
    return sorted({manifest.stack for manifest in manifests if manifest})
