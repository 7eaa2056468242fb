"""Where builds of vLLM lie on a host: one directory a build, `current` a link to one; and what is known of each.

/opt/sparkfleet/vllm-source/KEY is an environment that rests on a release of the stack: vLLM, and what it needs beyond
the stack, are its own; everything else it imports from the release. The key is made of all that decides what comes out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sparkhost import bounded, stack_store
from sparkhost.environment import assignments
from sparkhost.files import write_atomic
from sparkhost.resource import Failed
from sparkhost.stack_hashes import hashes
from sparkhost.stack_verify import walk, writable

STORE = Path("/opt/sparkfleet/vllm-source")
CURRENT = "current"
MANIFEST, SUMS = stack_store.MANIFEST, stack_store.SUMS
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
    if not STORE.is_dir():
        return []
    found = [path for path in STORE.iterdir() if not path.name.startswith(".") and not path.is_symlink()]
    return sorted(path.name for path in found if path.is_dir())


def current() -> str:
    """The build that `current` leads to; "" where there is none."""
    link = STORE / CURRENT
    return link.readlink().name if link.is_symlink() else ""


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
    found = hashes(root, sorted(walk(root)))
    links = {path: value.removeprefix("-> ") for path, value in found.items() if value.startswith("-> ")}
    lines = "".join(f"{value}  {path}\n" for path, value in found.items() if path not in links)
    data = lines.encode("utf-8", "surrogateescape")
    write_atomic(root / SUMS, data, 0o644)
    sums = hashlib.sha256(data).hexdigest()
    manifest = Manifest(key, commit, stack, dict(distributions), stack_store.fingerprint(root), sums, links)
    values = {"_": "managed by sparkfleet (measure: vllm_source)", **asdict(manifest)}
    write_atomic(root / MANIFEST, (json.dumps(values, indent=1) + "\n").encode(), 0o644)


def is_whole(key: str) -> bool:
    """Whether lstat(2) says that nothing of a build was changed since it was looked at (see stack_store)."""
    manifest = read_manifest(key)
    return manifest is not None and stack_store.fingerprint(home(key)) == manifest.fingerprint


def changed(key: str) -> list[str]:
    """Every file that is not as it was when the build was installed, by content: all of it is read."""
    root, manifest = home(key), read_manifest(key)
    if manifest is None:
        return [f"its {MANIFEST} is missing or damaged"]
    try:
        data = bounded.read(root / SUMS, stack_store.LARGEST_SUMS)
    except (Failed, OSError):
        data = b""
    if hashlib.sha256(data).hexdigest() != manifest.sums:
        return [f"{SUMS}: was changed"]
    rows = (row.partition("  ") for row in data.decode("utf-8", "surrogateescape").splitlines())
    known = {path: value for value, _, path in rows}
    known |= {path: f"-> {target}" for path, target in manifest.links.items()}
    paths = [path for path in walk(root) if path not in (MANIFEST, SUMS)]
    found = hashes(root, paths)
    wrong = [f"{path}: is missing" for path in sorted(known.keys() - found.keys())]
    wrong += [f"{path}: was added" for path in sorted(found.keys() - known.keys())]
    wrong += [f"{path}: was changed" for path in sorted(found.keys() & known.keys()) if found[path] != known[path]]
    return [*wrong, *writable(root, paths)]


def users(key: str) -> Iterator[int]:
    """Processes that use a build. May be called as root only."""
    return stack_store.users_of(home(key))


def bases() -> Sequence[str]:
    """The releases of the stack that builds rest on: they stay as long as those do."""
    manifests = (read_manifest(key) for key in builds())
    return sorted({manifest.stack for manifest in manifests if manifest})
