"""The group of training users and its members: local users and those of a directory service alike."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from sparkhost.block import Block, put_in, take_out
from sparkhost.files import make_directories, write_atomic
from sparkhost.pid1 import run
from sparkhost.resource import Change, Context, Failed, Refused, Resource

RECORD = Path("/var/lib/sparkfleet/training-people.json")
GROUP_FILE = Path("/etc/group")
SHADOW = Path("/etc/shadow")
# A day in the past: whoever expired is let in by no way at all, with a key as little as with a password (usermod(8)).
EXPIRED = "1"
BLOCK = Block("training_slice")


@dataclass
class Record:
    """What we did, so that it can be taken back, and nothing else is."""

    group: bool = False
    """Whether the group is ours."""
    members: list[str] = field(default_factory=list)
    """Users whom we put into the group."""
    keys: list[str] = field(default_factory=list)
    """Users who have keys from us."""
    created: list[str] = field(default_factory=list)
    """Users whose accounts are ours."""
    locked: dict[str, str] = field(default_factory=dict)
    """Of those, the ones that are locked since the measure was removed → when they expired before ("": never)."""

    def save(self) -> None:
        make_directories(RECORD.parent)
        write_atomic(RECORD, (json.dumps(vars(self)) + "\n").encode(), 0o644)


def read_record() -> Record:
    try:
        return Record(**json.loads(RECORD.read_text()))
    except FileNotFoundError:
        return Record()
    except (ValueError, TypeError) as error:
        raise Failed(f"{RECORD} is damaged: move it away and deploy again") from error


def user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def is_member(entry: pwd.struct_passwd, group: str) -> bool:
    try:
        return grp.getgrnam(group).gr_gid in os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        return False


def exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def is_local(group: str) -> bool:
    """Whether a group is in /etc/group, where members can be added; a directory's group is its admin's."""
    return bool(re.search(rf"^{re.escape(group)}:", GROUP_FILE.read_text(), re.MULTILINE))


def expires(name: str) -> str:
    """When an account expires, in days since the epoch; "": never, or its directory service knows (shadow(5))."""
    for line in SHADOW.read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 7:
            return fields[7]
    return ""


def with_keys(text: str, keys: Sequence[str]) -> str:
    """An authorized_keys with our block of these keys, at its end; without the block where there are none."""
    return put_in(text, keys, BLOCK) if keys else take_out(text, BLOCK).text


def as_user(entry: pwd.struct_passwd, command: str, text: str = "") -> str:
    """Runs a fixed shell command as a user, in its home: root follows no link that the user has put there.

    Raises:
        Failed: with the last line that it printed.
    """
    result = subprocess.run(
        ["/bin/sh", "-c", f'cd -- "$HOME" && {command}'],
        input=text,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
        cwd="/",
        env={"HOME": entry.pw_dir, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise Failed(f"the keys of {entry.pw_name}: {lines[-1]}")
    return result.stdout


READ_KEYS = "if [ -e .ssh/authorized_keys ]; then cat .ssh/authorized_keys; fi"
WRITE_KEYS = (
    "umask 077 && mkdir -p .ssh && cat > .ssh/.authorized_keys.sparkfleet-new && "
    "mv -fT .ssh/.authorized_keys.sparkfleet-new .ssh/authorized_keys"
)


@dataclass(frozen=True)
class TrainingPeople(Resource):
    """The group with its members. `users` are created where they are missing, with their keys; `members` only added.

    Who is taken off either list leaves the group, and loses the keys that came from here; accounts and homes stay.
    Without the measure, the accounts that it has made are locked; their homes stay, and they are unlocked with it.
    """

    kind: ClassVar[str] = "training_people"
    group: str
    users: dict[str, list[str]]
    members: list[str]
    wanted: bool = True

    def plan(self, context: Context) -> Sequence[Change]:
        return list(self._changes())

    def _names(self) -> list[str]:
        return [*dict.fromkeys([*self.users, *self.members])]

    def _changes(self) -> Iterator[Change]:
        record = read_record()
        if self.wanted and not exists(self.group):
            yield Change(f"group {self.group}", "create")
        elif self._names() and not is_local(self.group):
            outside = [name for name in self._names() if not ((e := user(name)) and is_member(e, self.group))]
            if outside:
                raise Refused(
                    f"the group {self.group} comes from a directory service: add {', '.join(outside)} there, "
                    "or name a local group (training_slice.group)"
                )
        for name in self._names():
            entry = user(name)
            if entry is None and name not in self.users:
                raise Refused(
                    f"training_slice.members: no user {name} on this host or its directory service: correct the name, "
                    "or put it under training_slice.users to have it created"
                )
            if entry is None:
                yield Change(f"user {name}", f"create, in the group {self.group}, with {len(self.users[name])} keys")
                continue
            if entry.pw_uid == 0:
                raise Refused(f"training_slice: {name} is root: training users are never root")
            if not is_member(entry, self.group):
                yield Change(f"user {name}", f"add to the group {self.group}")
            if name in self.users:
                if name in record.locked:
                    yield Change(f"user {name}", "unlock: it was locked when the measure was removed")
                yield from self._keys(entry, self.users[name])
        for name in record.members:
            if name not in self._names() and (entry := user(name)) and is_member(entry, self.group):
                yield Change(f"user {name}", f"take out of the group {self.group}")
        for name in record.keys:
            if name not in self.users and (entry := user(name)):
                yield from self._keys(entry, [])
        for name in self._to_lock(record):
            yield Change(f"user {name}", "lock: a deploy has made this account; its home stays")
        if not self.wanted and record.group and exists(self.group):
            yield Change(f"group {self.group}", "remove")

    def _to_lock(self, record: Record) -> list[str]:
        return [] if self.wanted else [n for n in record.created if n not in record.locked and user(n)]

    def _keys(self, entry: pwd.struct_passwd, keys: Sequence[str]) -> Iterator[Change]:
        old = as_user(entry, READ_KEYS)
        if with_keys(old, keys) != old:
            yield Change(f"user {entry.pw_name}", f"set the {len(keys)} keys from here in its authorized_keys")

    def apply(self) -> None:
        record = read_record()
        if self.wanted and not exists(self.group):
            run("groupadd", "--system", "--", self.group)
            record.group = True
            record.save()
        for name in self._names():
            if user(name) is None and name in self.users:
                run("useradd", "--create-home", "--shell", "/bin/bash", "--", name)
                record.created = [*dict.fromkeys([*record.created, name])]
                record.locked.pop(name, None)
                record.save()
            entry = _known(name)
            if not is_member(entry, self.group):
                # gpasswd, unlike usermod, takes users of a directory service into a local group.
                run("gpasswd", "--add", name, self.group)
                record.members = [*dict.fromkeys([*record.members, name])]
                record.save()
            if name in self.users:
                if name in record.locked:
                    run("usermod", "--expiredate", record.locked[name], "--", name)
                    del record.locked[name]
                    record.save()
                self._set_keys(entry, self.users[name], record)
        for name in [name for name in record.members if name not in self._names()]:
            if (gone := user(name)) and is_member(gone, self.group):
                run("gpasswd", "--delete", name, self.group)
            record.members.remove(name)
            record.save()
        for name in [name for name in record.keys if name not in self.users]:
            if gone := user(name):
                self._set_keys(gone, [], record)
            record.keys.remove(name)
            record.save()
        for name in self._to_lock(record):
            record.locked[name] = expires(name)
            record.save()
            run("usermod", "--expiredate", EXPIRED, "--", name)
        if not self.wanted and record.group and exists(self.group):
            run("groupdel", "--", self.group)
            record.group = False
            record.save()
        if not self.wanted and record == Record():
            RECORD.unlink(missing_ok=True)

    def _set_keys(self, entry: pwd.struct_passwd, keys: Sequence[str], record: Record) -> None:
        old = as_user(entry, READ_KEYS)
        if (new := with_keys(old, keys)) != old:
            as_user(entry, WRITE_KEYS, new)
        if keys and entry.pw_name not in record.keys:
            record.keys.append(entry.pw_name)
            record.save()


def _known(name: str) -> pwd.struct_passwd:
    entry = user(name)
    if entry is None:
        raise Failed(f"user {name} is not there although useradd has made it: see /etc/passwd and nsswitch.conf(5)")
    return entry
