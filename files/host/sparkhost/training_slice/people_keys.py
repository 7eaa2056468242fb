"""The keys of training users, in their own authorized_keys: a block of ours in a file of theirs.

Whatever a user puts there (a FIFO, a link to a device, holes, a file system that never answers) costs that user alone.
"""

from __future__ import annotations

import pwd
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sparkhost.base import bounded
from sparkhost.base.block import Block, put_in, take_out
from sparkhost.base.resource import Failed

BLOCK = Block("training_slice")
LARGEST_KEYS = 2**20
"""Bytes of an authorized_keys: some 10,000 keys."""
PATIENCE = 10.0
"""Seconds that one user's home may take. AT_ONCE of them are looked at side by side: 50 that hang cost 40 s."""
AT_ONCE = 16


def with_keys(text: str, keys: Sequence[str]) -> str:
    """An authorized_keys with our block of these keys, at its end; without the block where there are none."""
    return put_in(text, keys, BLOCK) if keys else take_out(text, BLOCK).text


def as_user(entry: pwd.struct_passwd, command: str, text: str = "") -> str:
    """Runs a fixed shell command as a user, in its home: root follows no link that the user has put there.

    Raises:
        Failed: with the last line that it printed; also where it has no end within PATIENCE, or within LARGEST_KEYS.
    """
    try:
        result = bounded.call(
            ["/bin/sh", "-c", f'cd -- "$HOME" && {command}'],
            seconds=PATIENCE,
            limit=LARGEST_KEYS,
            given=text,
            env={"HOME": entry.pw_dir, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            user=entry.pw_uid,
            group=entry.pw_gid,
        )
    except bounded.TooLarge:
        raise Failed(f"{KEYS} has more than {LARGEST_KEYS // 1024} KiB: have its user shorten it") from None
    except bounded.Late:
        raise Failed(f"the home {entry.pw_dir} gave no answer within {PATIENCE:.0f} s") from None
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise Failed(f"{lines[-1][:200]}: have its user mend that")
    return result.stdout


KEYS = ".ssh/authorized_keys"
# A directory that cannot be entered hides keys that are in force again as soon as its user opens it.
READ_KEYS = (
    f"if [ -d .ssh ] && ! [ -x .ssh ]; then echo '.ssh: cannot be entered' >&2; exit 1; "
    f"elif [ -f {KEYS} ]; then cat {KEYS}; "
    f"elif [ -e {KEYS} ] || [ -L {KEYS} ]; then echo '{KEYS}: no regular file' >&2; exit 1; fi"
)
WRITE_KEYS = (
    "umask 077 && mkdir -p .ssh && cat > .ssh/.authorized_keys.sparkfleet-new && "
    f"mv -fT .ssh/.authorized_keys.sparkfleet-new {KEYS}"
)


def look(entries: Mapping[str, pwd.struct_passwd], wanted: Mapping[str, Sequence[str]]) -> dict[str, bool | Exception]:
    """By user, whether the keys in its home are other than wanted; or why that cannot be told. Side by side."""

    def differs(name: str) -> bool | Exception:
        try:
            old = as_user(entries[name], READ_KEYS)
            return with_keys(old, wanted[name]) != old
        except Exception as error:
            return error

    if not entries:
        return {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(entries, pool.map(differs, entries), strict=True))


def set_keys(entry: pwd.struct_passwd, keys: Sequence[str]) -> None:
    """Puts our block of these keys into a user's file. Raises Failed."""
    as_user(entry, WRITE_KEYS, with_keys(as_user(entry, READ_KEYS), keys))
