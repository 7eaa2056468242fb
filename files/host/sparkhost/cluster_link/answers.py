"""Whether peers answer on a device: packets of full size that nobody may cut, and nobody else at our address.

Own packets instead of ping(8) and arping(8): a host need not have them, and ping does not tell that an answer came in
pieces, which is how a peer with a smaller MTU answers a large question.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from pathlib import Path

from sparkhost.cluster_link.hardware import SYS, word

# linux/in.h; Python has no names for them.
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IP_RECVFRAGSIZE = 10, 3, 25
ETH_P_ARP, ETH_P_IP = 0x0806, 0x0800
ECHO, HEADERS = 8, 28
WAIT = 1.0
"""Seconds for one answer."""


def echo(device: str, address: str, mtu: int) -> str:
    """Why a peer does not answer a packet of `mtu` bytes on a device, in a few words; "" where it does.

    Raises:
        OSError: such as a device that is gone.
    """
    number = os.getpid() & 0xFFFF
    packet = request(number, bytes(mtu - HEADERS))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        raw.setsockopt(socket.IPPROTO_IP, IP_RECVFRAGSIZE, 1)
        raw.settimeout(WAIT)
        try:
            raw.sendto(packet, (address, 0))
        except OSError as error:
            return f"a packet of {mtu} bytes cannot be sent: {error.strerror or error}"
        until = time.monotonic() + WAIT
        while (left := until - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
            data, control, _, sender = raw.recvmsg(65536, 256)
            start = (data[0] & 0x0F) * 4
            if sender[0] == address and data[start : start + 1] == b"\0" and is_ours(data[start:], number):
                piece = next((struct.unpack("i", d[:4])[0] for _, kind, d in control if kind == IP_RECVFRAGSIZE), 0)
                return f"answers in pieces of {piece} bytes: its MTU is smaller than {mtu}" if piece else ""
    return f"does not answer packets of {mtu} bytes"


def request(number: int, payload: bytes) -> bytes:
    """An echo request (RFC 792)."""
    bare = struct.pack("!BBHHH", ECHO, 0, 0, number, 1) + payload
    return bare[:2] + struct.pack("!H", checksum(bare)) + bare[4:]


def is_ours(answer: bytes, number: int) -> bool:
    return len(answer) >= 8 and struct.unpack("!H", answer[4:6]) == (number,)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def other_owner(device: str, address: str) -> str:
    """The MAC of another machine that has this address on the device's wire, or "" (RFC 5227, ARP probe).

    Raises:
        OSError: such as a device that is down.
    """
    own = bytes.fromhex(word(Path(SYS) / "class/net" / device / "address").replace(":", ""))
    target = socket.inet_aton(address)
    probe = struct.pack("!HHBBH6s4s6s4s", 1, ETH_P_IP, 6, 4, 1, own, bytes(4), bytes(6), target)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as raw:
        raw.bind((device, ETH_P_ARP))
        raw.send(b"\xff" * 6 + own + struct.pack("!H", ETH_P_ARP) + probe)
        until = time.monotonic() + WAIT
        while (left := until - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
            frame = raw.recv(2048)
            if len(frame) >= 42 and frame[20:22] == b"\0\2" and frame[28:32] == target and frame[22:28] != own:
                return frame[22:28].hex(":")
    return ""
