"""journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram a record, never waiting."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

SOCKET = "/run/systemd/journal/socket"
# Names records of this kind: `journalctl MESSAGE_ID=…`.
MESSAGE_ID = "0b6c7e1d2f5a4f7c9d51b3a4c1e8f3a7"
# A datagram of a unix socket is limited by its buffer (net.core.wmem_default).
LARGEST = 128 * 1024
WARNING, NOTICE, CRITICAL = 4, 5, 2
PRIORITY = {"term": WARNING, "kill": WARNING, "helpless": CRITICAL, "left_out": WARNING}


def encode(fields: Mapping[str, str]) -> bytes:
    """The fields of a record; a value with a newline is sent with its length."""
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def fields_of(line: str, record: Mapping[str, Any]) -> dict[str, str]:
    """Every number that led to the decision, as fields that `journalctl` can be asked for."""
    fields = {
        "MESSAGE": line,
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": str(PRIORITY.get(record["event"], NOTICE)),
        "SYSLOG_IDENTIFIER": "sparkfleet-watchdog",
        "SPARKFLEET_EVENT": record["event"],
        "SPARKFLEET_RECORD": json.dumps(record),
    }
    for name in ("available", "free", "total", "slope", "stall"):
        fields[f"SPARKFLEET_{name.upper()}"] = str(record["look"][name])
    if victim := record["victim"]:
        for name in ("name", "cgroup", "owner", "size", "gpu", "anonymous", "shared"):
            fields[f"SPARKFLEET_VICTIM_{name.upper()}"] = str(victim[name])
    return fields


def send(address: str, line: str, record: Mapping[str, Any]) -> None:
    """Sends a record, without its long part where that is too long.

    Raises:
        OSError: journald does not take it now; it is lost.
    """
    fields = fields_of(line, record)
    data = encode(fields)
    if len(data) > LARGEST:
        fields.pop("SPARKFLEET_RECORD")
        data = encode(fields)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        sender.sendto(data, address)
