"""What root sees of the CUDA stack: what is installed, what was changed since, what the loader would take."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

STACKS = Path("/opt/sparkfleet/stacks")
MARK = "sparkfleet.json"
"""Written last, when a release was found whole."""
SUMS = "SHA256SUMS"
MOST = 50
LIBRARIES = (
    "torch/lib/libtorch_cuda*.so",
    "torch/lib/libc10_cuda.so",
    "vllm/*.so",
    "triton/_C/*.so",
    "torchvision/*.so",
)
OF_CUDA = re.compile(r"lib(?:cudart|cublas|cublasLt|nvrtc)[^/ ]*\.so[.0-9]*")
NOTHING = "no stack\n"


def root() -> Path | None:
    """The release that `current` leads to."""
    path = STACKS / "current"
    return path.resolve() if path.is_dir() else None


def site(release: Path) -> Path | None:
    return next(iter(release.glob("lib/python3.*/site-packages")), None)


def installed(parameters: Parameters) -> Mapping[str, Seen]:
    """`release NAME` and `NAME VERSION` of each distribution, as its own directory says."""
    command = f"ls -d {STACKS}/current/lib/python3*/site-packages/*.dist-info"
    release = root()
    where = site(release) if release else None
    if release is None or where is None:
        return {"stack_installed": Seen(command, NOTHING)}
    lines = []
    for folder in sorted(where.glob("*.dist-info")):
        # Some have the line ends of another system.
        text = read(str(folder / "METADATA"), limit=4 * 2**20).output.replace("\r\n", "\n")
        head = text.partition("\n\n")[0]
        fields = dict(re.findall(r"^(Name|Version): *(\S+) *$", head, re.MULTILINE))
        lines.append(f"{fields.get('Name', folder.name)} {fields.get('Version', '?')}")
    count = f"{len(lines)} distributions in {release.name}"
    return {"stack_installed": Seen(command, "\n".join([count, *lines]) + "\n")}


def files(parameters: Parameters) -> Mapping[str, Seen]:
    """Files that were changed, added or removed since the release was found whole; and what others than root can write.

    By ctime, which nobody can set back: a release is never written to after its mark. Nothing is read: 8 GB are not
    hashed for an audit (`spark-stack verify` does that).
    """
    return looked_over(STACKS, root(), "stack", NOTHING)


def looked_over(store: Path, release: Path | None, prefix: str, nothing: str) -> Mapping[str, Seen]:
    """The same of any such store: `PREFIX_changed` and `PREFIX_owner`."""
    since = f"find -L {store}/current -newercc {store}/current/{MARK}"
    owned = f"find -L {store}/current ! -user root -o -perm /022"
    if release is None:
        return {f"{prefix}_changed": Seen(since, nothing), f"{prefix}_owner": Seen(owned, nothing)}
    try:
        mark = (release / MARK).lstat().st_ctime_ns
        known = {line.partition("  ")[2].rstrip("\n") for line in (release / SUMS).open(errors="surrogateescape")}
    except OSError as error:
        told = f"0 files\nthe release was never found whole: {error.filename}\n"
        return {f"{prefix}_changed": Seen(since, told), f"{prefix}_owner": Seen(owned, *owners(release))}
    found, wrong = set(), []
    for path, status in walked(release):
        if stat.S_ISREG(status.st_mode):
            found.add(path)
        if path == MARK or stat.S_ISDIR(status.st_mode):
            continue
        if status.st_ctime_ns > mark:
            wrong.append(f"changed {path}" if path in known or path == SUMS else f"added {path}")
        elif stat.S_ISREG(status.st_mode) and path not in known and path != SUMS:
            wrong.append(f"added {path}")
    wrong += [f"missing {path}" for path in sorted(known - found)]
    told = "\n".join([f"{len(found)} files", *wrong[:MOST]]) + "\n"
    return {f"{prefix}_changed": Seen(since, printable(told)), f"{prefix}_owner": Seen(owned, *owners(release))}


def walked(release: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a directory, with what lstat(2) says."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(release / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                yield path, entry.stat(follow_symlinks=False)


def owners(release: Path) -> tuple[str]:
    """What others than root own or can write, the directories above included."""
    above = [(str(path), path.lstat()) for path in (release, *release.parents)]
    count, wrong = 0, []
    for path, status in [*above, *walked(release)]:
        count += 1
        loose = status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
        if status.st_uid or loose:
            wrong.append(f"{status.st_uid} {stat.S_IMODE(status.st_mode):04o} {path}")
    return (printable("\n".join([f"{count} paths", *wrong[:MOST]]) + "\n"),)


def printable(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


def libraries(parameters: Parameters) -> Mapping[str, Seen]:
    """`FILE LIBRARY`: CUDA's libraries that the dynamic loader would take for torch, vLLM and Triton."""
    command = f"ldd {STACKS}/current/lib/python3*/site-packages/{{torch/lib,vllm,triton/_C}}/*.so"
    release = root()
    where = site(release) if release else None
    if where is None:
        return {"stack_libraries": Seen(command, NOTHING)}
    paths = sorted(path for pattern in LIBRARIES for path in where.glob(pattern))[:MOST]
    lines = []
    for path in paths:
        answer = run(("ldd", str(path)))
        if answer.rc:
            return {"stack_libraries": answer._replace(command=command, output="")}
        names = sorted(set(OF_CUDA.findall(answer.output)))
        lines += [f"{path.relative_to(where)} {name}" for name in names]
    return {"stack_libraries": Seen(command, "\n".join([f"{len(paths)} libraries", *lines]) + "\n")}


def torch(parameters: Parameters) -> Mapping[str, Seen]:
    """Which CUDA torch was built for: its own word, and whether the library that uses it is there."""
    command = f"grep ^cuda {STACKS}/current/lib/python3*/site-packages/torch/version.py"
    release = root()
    where = site(release) if release else None
    if where is None:
        return {"stack_torch": Seen(command, NOTHING)}
    if not (where / "torch").is_dir():
        return {"stack_torch": Seen(command, "no torch\n")}
    line = next(
        (row for row in read(str(where / "torch/version.py")).output.splitlines() if row.startswith("cuda")), "?"
    )
    there = "present" if (where / "torch/lib/libtorch_cuda.so").is_file() else "absent"
    return {"stack_torch": Seen(command, f"{line}\nlibtorch_cuda.so {there}\n")}


def flash_attention(parameters: Parameters) -> Mapping[str, Seen]:
    """Everything in the stack by which `import flash_attn` would work."""
    command = f"ls -d {STACKS}/current/lib/python3*/site-packages/flash_attn*"
    release = root()
    where = site(release) if release else None
    if where is None:
        return {"stack_flash": Seen(command, NOTHING)}
    found = sorted(path.name for path in where.iterdir() if re.match(r"flash[-_.]attn", path.name, re.IGNORECASE))
    return {"stack_flash": Seen(command, "\n".join([f"{len(found)} found", *found[:MOST]]) + "\n")}


LOOKS: dict[str, Looks] = {
    "stack_installed": installed,
    "stack_changed": files,
    "stack_libraries": libraries,
    "stack_torch": torch,
    "stack_flash": flash_attention,
}
