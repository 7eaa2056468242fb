"""The group of training users and its members: local users and those of a directory service alike.

How it works: `TrainingPeople` is one walk over steps, as every resource is. Each user is a piece of its own.
Rights are taken away first, without asking whom they are taken from; then they are given; what needs a user's own
files, the keys, comes last. Root never opens a file below a home: a child with the user's rights does, with an end in
size and time.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, write_atomic
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step, Troubles
from sparkhost.training_slice.people_keys import look, set_keys

RECORD = Path("/var/lib/sparkfleet/training-people.json")
GROUP_FILE = Path("/etc/group")
SHADOW = Path("/etc/shadow")
# A day in the past: whoever expired is let in by no way at all, with a key as little as with a password (usermod(8)).
EXPIRED = "1"


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
        """Writes it; a record of nothing is no file."""
        if self == Record():
            RECORD.unlink(missing_ok=True)
            return
        make_directories(RECORD.parent)
        write_atomic(RECORD, (json.dumps(vars(self)) + "\n").encode(), 0o644)


def read_record() -> Record:
    """Raises Failed: what is there is not what `save` wrote."""
    try:
        found = Record(**json.loads(bounded.read_text(RECORD)))
    except FileNotFoundError:
        return Record()
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged() from error
    lists = [*found.members, *found.keys, *found.created] if are_lists(found) else [None]
    locked = found.locked if isinstance(found.locked, dict) else {"": None}
    if not all(isinstance(one, str) for one in (*lists, *locked, *locked.values())):
        raise damaged()
    return found


def are_lists(record: Record) -> bool:
    return all(isinstance(one, list) for one in (record.members, record.keys, record.created))


def damaged() -> Failed:
    return Failed(f"{RECORD} is damaged: move it away and deploy again")


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
    return bool(re.search(rf"^{re.escape(group)}:", bounded.read_text(GROUP_FILE), re.MULTILINE))


def expires(name: str) -> str:
    """When an account expires, in days since the epoch; "": never, or its directory service knows (shadow(5))."""
    for line in bounded.read_text(SHADOW).splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 7:
            return fields[7]
    return ""


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
    gives: bool = True
    """Whether it goes on after taking away: a second one, further back in a measure, then gives, or removes the group,
    whose number must not become another's while jobs have it.
    """

    def steps(self, context: Context) -> Iterator[Step]:
        for step in self._steps(read_record(), context.troubles):
            if not context.shows(step):
                yield replace(step, alone=True)

    def _names(self) -> list[str]:
        return [*dict.fromkeys([*self.users, *self.members])]

    def _steps(self, record: Record, troubles: Troubles) -> Iterator[Step]:
        yield from self._taken(record)
        if self.gives:
            yield from self._given(record, troubles)
        if self.gives or not self.wanted:
            yield from self._keys(record, troubles)
        if self.gives and not self.wanted and record.group and exists(self.group):
            yield Step(f"group {self.group}", "remove", partial(self._remove_group, record))

    def _taken(self, record: Record) -> Iterator[Step]:
        """What goes without anybody's help."""
        for name in [name for name in record.members if name not in self._names()]:
            inside = (entry := user(name)) is not None and is_member(entry, self.group)
            summary = f"take out of the group {self.group}" if inside else ""
            yield Step(f"user {name}", summary, partial(self._expel, record, name, inside))
        for name in record.created if not self.wanted else ():
            if name not in record.locked and user(name):
                summary = "lock: a deploy has made this account; its home stays"
                yield Step(f"user {name}", summary, partial(_lock, record, name))

    def _given(self, record: Record, troubles: Troubles) -> Iterator[Step]:
        if self.wanted and not exists(self.group):
            yield Step(f"group {self.group}", "create", partial(self._add_group, record))
        elif self._names() and not is_local(self.group):
            names = [n for n in self._names() if not ((e := user(n)) and is_member(e, self.group))]
            if names:
                troubles.note(
                    Refused(
                        f"the group {self.group} comes from a directory service: add {', '.join(names)} there, "
                        "or name a local group (training_slice.group)"
                    )
                )
                return
        for name in self._names():
            with troubles.piece():
                yield from self._welcome(record, name)

    def _welcome(self, record: Record, name: str) -> Iterator[Step]:
        if (entry := user(name)) is None:
            if name not in self.users:
                raise Refused(
                    f"training_slice.members: no user {name} on this host or its directory service: correct the name, "
                    "or put it under training_slice.users to have it created"
                )
            summary = f"create, in the group {self.group}, with {len(self.users[name])} keys"
            yield Step(f"user {name}", summary, partial(self._create, record, name))
            return
        if entry.pw_uid == 0:
            raise Refused(f"training_slice: {name} is root: training users are never root")
        if not is_member(entry, self.group):
            yield Step(f"user {name}", f"add to the group {self.group}", partial(self._admit, record, name))
        if name in self.users and name in record.locked:
            summary = "unlock: it was locked when the measure was removed"
            yield Step(f"user {name}", summary, partial(_unlock, record, name))

    def _keys(self, record: Record, troubles: Troubles) -> Iterator[Step]:
        """Of those who lose some first."""
        gone: dict[str, Sequence[str]] = {n: () for n in record.keys if n not in self.users}
        for name in [name for name in gone if user(name) is None]:
            yield Step(f"user {name}", "", partial(_note_keys, record, name, ()))
        entries = {n: e for n in (*gone, *self.users) if (e := user(n)) and e.pw_uid}
        wanted = {name: self.users.get(name, ()) for name in entries}
        for name, differs in look(entries, wanted).items():
            what, keys = f"user {name}", wanted[name]
            if isinstance(differs, Exception):
                troubles.note(differs, f"{what}: its keys: ")
            elif differs:
                summary = f"set the {len(keys)} keys from here in its authorized_keys"
                yield Step(what, summary, partial(_set_keys, record, entries[name], keys))
            elif (name in record.keys) != bool(keys):
                yield Step(what, "", partial(_note_keys, record, name, keys))

    def _expel(self, record: Record, name: str, inside: bool) -> None:
        if inside:
            run("gpasswd", "--delete", name, self.group)
        record.members.remove(name)
        record.save()

    def _create(self, record: Record, name: str) -> None:
        run("useradd", "--create-home", "--shell", "/bin/bash", "--", name)
        record.created = [*dict.fromkeys([*record.created, name])]
        record.locked.pop(name, None)
        record.save()
        if (entry := user(name)) is None:
            raise Failed("is not there although useradd has made it: see /etc/passwd and nsswitch.conf(5)")
        if not is_member(entry, self.group):
            self._admit(record, name)
        if self.users[name]:
            _set_keys(record, entry, self.users[name])

    def _add_group(self, record: Record) -> None:
        run("groupadd", "--system", "--", self.group)
        record.group = True
        record.save()

    def _admit(self, record: Record, name: str) -> None:
        # Noted first: who is killed in between leaves a member who can be taken out again.
        record.members = [*dict.fromkeys([*record.members, name])]
        record.save()
        # gpasswd, unlike usermod, takes users of a directory service into a local group.
        run("gpasswd", "--add", name, self.group)

    def _remove_group(self, record: Record) -> None:
        run("groupdel", "--", self.group)
        record.group = False
        record.save()


def _lock(record: Record, name: str) -> None:
    record.locked[name] = expires(name)
    record.save()
    run("usermod", "--expiredate", EXPIRED, "--", name)


def _unlock(record: Record, name: str) -> None:
    run("usermod", "--expiredate", record.locked[name], "--", name)
    del record.locked[name]
    record.save()


def _set_keys(record: Record, entry: pwd.struct_passwd, keys: Sequence[str]) -> None:
    if keys:
        _note_keys(record, entry.pw_name, keys)  # first: what may be there can be taken away again
    set_keys(entry, keys)
    _note_keys(record, entry.pw_name, keys)


def _note_keys(record: Record, name: str, keys: Sequence[str]) -> None:
    record.keys = [*(known for known in record.keys if known != name), *([name] if keys else [])]
    record.save()
