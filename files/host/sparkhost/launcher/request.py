"""What may be asked of the root helper: four actions, a handful of values of closed types, nothing else.

There is no field for a user, a path, a command, a variable or a property of a unit: whose unit it is comes from the
kernel (SO_PEERCRED), all else reaches the job without passing through root.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sparkhost.base.units import LEAST_MEMORY, is_id, is_name

LONGEST = 1024
"""Bytes of a request."""
VERSION = 1
LARGEST = 2**63 - 1


class BadRequest(Exception):
    """Not a request. One line, without anything of what was sent."""


class Start(NamedTuple):
    """A job. `memory`: bytes, None for all of the slice's; `time`: seconds, None for no limit."""

    memory: int | None = None
    time: int | None = None
    name: str | None = None
    host_ipc: bool = False
    """Whether the job sees the host's /dev/shm and System V IPC instead of its own."""
    wait: bool = False
    """Whether it waits for its turn where its promise does not fit yet."""
    ticket: str | None = None
    """The place in the queue that an answer to an earlier such request gave."""


class Stop(NamedTuple):
    """The end of the caller's own job of this id."""

    id: str


class Leave(NamedTuple):
    """The caller's own place in the queue given up."""

    ticket: str


class DropCache(NamedTuple):
    """Clean page cache given back, for the CUDA runtime counts it as used (docs/training.md)."""


Request = Start | Stop | Leave | DropCache


def parse(data: bytes) -> Request:
    """The request in a message.

    Raises:
        BadRequest: anything but a request, whatever the bytes are.
    """
    if len(data) > LONGEST:
        raise BadRequest(f"the request is longer than {LONGEST} bytes")
    try:
        value = json.loads(data.decode("ascii"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the request is not JSON") from error
    version = value.pop("version", None) if isinstance(value, dict) else None
    if type(version) is not int or version != VERSION:
        raise BadRequest("the request is of another version: log in again, or deploy again")
    action = value.pop("action", None)
    if action == "start":
        return _start(value)
    if action == "stop":
        id_ = value.pop("id", None)
        if value or not isinstance(id_, str) or not is_id(id_):
            raise BadRequest("stop takes the id of a job: 8 hex digits")
        return Stop(id_)
    if action == "leave":
        ticket = value.pop("ticket", None)
        if value or not isinstance(ticket, str) or not is_id(ticket):
            raise BadRequest("leave takes a ticket: 8 hex digits")
        return Leave(ticket)
    if action == "drop_cache" and not value:
        return DropCache()
    raise BadRequest("unknown action")


def _start(value: dict[str, Any]) -> Start:
    memory, time, name = value.pop("memory", None), value.pop("time", None), value.pop("name", None)
    host_ipc, wait = value.pop("host_ipc", False), value.pop("wait", False)
    ticket = value.pop("ticket", None)
    if value:
        raise BadRequest("start has a key that is not known")
    if memory is not None and not (type(memory) is int and LEAST_MEMORY <= memory <= LARGEST):
        raise BadRequest("memory: expected a number of bytes, 32 MiB at least")
    if time is not None and not (type(time) is int and 1 <= time <= 10_000 * 86400):
        raise BadRequest("time: expected a number of seconds, 10000 days at most")
    if name is not None and not (isinstance(name, str) and is_name(name)):
        raise BadRequest("name: expected at most 48 letters, digits, dots, dashes and underscores")
    if type(host_ipc) is not bool or type(wait) is not bool:
        raise BadRequest("host_ipc, wait: expected true or false")
    if ticket is not None and not (isinstance(ticket, str) and is_id(ticket)):
        raise BadRequest("ticket: expected 8 hex digits")
    return Start(memory, time, name, host_ipc, wait, ticket)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of a doubled key could differ about which one counts."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def encode(request: Request) -> bytes:
    """The message of a request."""
    action = {Start: "start", Stop: "stop", Leave: "leave", DropCache: "drop_cache"}[type(request)]
    return json.dumps({"version": VERSION, "action": action, **request._asdict()}).encode("ascii")
