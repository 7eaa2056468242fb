"""What changes from one lock to another, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from sparkfleet.stack.lock import Lock


def difference(old: Lock | None, new: Lock) -> Iterator[str]:
    """One line a distribution: what is added, removed, at another version, or another file of the same version."""
    before = {wheel.name: wheel for wheel in old.wheels} if old else {}
    after = {wheel.name: wheel for wheel in new.wheels}
    for name in sorted({*before, *after}):
        if name not in before:
            yield f"+ {name} {after[name].version}"
        elif name not in after:
            yield f"- {name} {before[name].version}"
        elif before[name].version != after[name].version:
            yield f"~ {name} {before[name].version} -> {after[name].version}"
        elif before[name].sha256 != after[name].sha256:
            # Of one release only another build, or a file that was replaced, which no index should allow.
            yield f"! {name} {after[name].version}: another file: {after[name].filename}"


def summary(old: Lock | None, new: Lock) -> str:
    """The lock in one line."""
    size = f"{len(new.wheels)} wheels, {new.size / 1e9:.2f} GB"
    if old is None:
        return f"{new.release} ({new.machine}): {size}, the first lock"
    if old.digest == new.digest:
        return f"{new.release} ({new.machine}): {size}, unchanged"
    return f"{new.release} ({new.machine}): {size}, was {old.release}"
