"""`spark-stack`: which stacks this host has, and whether one is as it was installed. For everybody; changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.smoke import bench, matrix
from sparkhost.stack import store as stack_store
from sparkhost.stack import users as stack_users
from sparkhost.stack.hashes import hashes
from sparkhost.stack.verify import problems, walk

USAGE = """\
usage: spark-stack [list] [--json]  what is installed; * is what spark-python starts
       spark-stack path             the environment of spark-python
       spark-stack verify [RELEASE] reads every file: is it what its lock says?
       spark-stack smoke [--json]   tries torch, Triton and vLLM on the GPU: some minutes, a few GiB
       spark-stack smoke --bench [--json] [--new-reference]
                                    five seconds and 1 GiB of the GPU: is it as fast as it was at root's first run?

Nothing is changed. A job keeps the release that it was started with, also when the admin installs another.
Exit code: 0, 1 something is wrong with a stack, it is slower than it was, or there is none, 2 a mistake on the command
line, 3 (smoke) there is no GPU that torch can use.

examples:
  spark-stack
  spark-stack verify
  uv venv --python "$(spark-stack path)/bin/python"   a project's own environment, on the same Python"""
OURS = {
    stack_store.MANIFEST,
    stack_store.SUMS,
    *stack_users.FILES,
}


@quiet_without_reader
def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0, 1 something is wrong or slow or there is no stack, 2 a wrong call, 3 nothing could be shown."""
    match list(arguments):
        case [] | ["list"]:
            return listed()
        case ["--json"] | ["list", "--json"]:
            return listed_json()
        case ["path"]:
            release = stack_store.current()
            print(stack_store.home(release) if release else "no stack is installed here")
            return 0 if release else 1
        case ["verify"]:
            return verified(stack_store.current())
        case ["verify", release]:
            return verified(release)
        case ["smoke", *words] if words in ([], ["--json"]):
            return smoked(matrix.main, words)
        case ["smoke", "--bench", *words] if set(words) <= {"--json", bench.NEW}:
            return smoked(bench.main, words)
        case ["-h" | "--help"]:
            print(USAGE)
            return 0
    print(USAGE, file=sys.stderr)
    return 2


def listed() -> int:
    found = stack_store.releases()
    for release in found:
        manifest = stack_store.read_manifest(stack_store.home(release))
        what = f"{len(manifest.wheels)} packages" if manifest else "damaged: was never finished, or was changed"
        versions = manifest.wheels if manifest else {}
        named = "".join(f", {name} {versions[name]}" for name in ("torch", "vllm") if name in versions)
        print(f"{'*' if release == stack_store.current() else ' '} {release}  {what}{named}")
    if not found:
        print("no stack is installed here")
    return 0 if found else 1


def listed_json() -> int:
    """As `listed`, for programs: `wheels` is null where a release was never finished, or was changed."""
    current = stack_store.current()
    found = []
    for release in stack_store.releases():
        manifest = stack_store.read_manifest(stack_store.home(release))
        wheels = dict(manifest.wheels) if manifest else None
        found.append({"release": release, "current": release == current, "wheels": wheels})
    print(json.dumps(found))
    return 0 if found else 1


def smoked(main: Callable[[str, str, Sequence[str]], int], words: Sequence[str]) -> int:
    release = stack_store.current()
    if not release:
        print("no stack is installed here")
        return 1
    return main(str(stack_store.home(release) / "bin" / "python"), release, words)


def verified(release: str) -> int:
    """Everything anew, as before the release was put in place, and against what was noted then."""
    manifest = stack_store.read_manifest(stack_store.home(release)) if release in stack_store.releases() else None
    if manifest is None:
        print(f"spark-stack: {release or 'current'} is not installed, or damaged", file=sys.stderr)
        return 1
    root = stack_store.home(release)
    paths = [path for path in sorted(walk(root)) if path not in OURS]
    sums = stack_store.sums_of(root, manifest) or {}
    found = hashes(root, paths)
    wrong = problems(root, manifest.wheels, found, lambda path, sha256: sums.get(path) == sha256)
    wrong += stack_store.changed(root, manifest)
    for line in dict.fromkeys(wrong):
        print(line)
    print(f"{release}: {len(paths)} files, {'nothing wrong' if not wrong else f'{len(set(wrong))} things wrong'}")
    return 1 if wrong else 0
