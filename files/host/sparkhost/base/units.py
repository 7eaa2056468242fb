"""Sizes and durations as a person writes them on the command line, and as they are shown."""

from __future__ import annotations

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
# 60G is what systemd calls it, 60GiB what the fleet file does; both are 60 times 2^30 bytes.
SIZES = {"K": KIB, "M": MIB, "G": GIB, "T": TIB, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
DURATIONS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
LARGEST = 2**63 - 1


LEAST_MEMORY = 32 * MIB
"""A job needs room for the stub, at least."""
LONGEST_NAME = 48


def is_name(text: str) -> bool:
    """Whether a job may be called so: at most 48 letters, digits, dots, dashes and underscores, not one of these first.

    No regular expression: importing `re` takes longer than all else that `spark-run` imports before it asks for a job.
    """
    plain = text.isascii() and all(letter.isalnum() or letter in "._-" for letter in text)
    return plain and text[:1].isalnum() and len(text) <= LONGEST_NAME


def is_id(text: str) -> bool:
    """Whether it can be the id of a job: 8 hex digits."""
    return len(text) == 8 and all(letter in "0123456789abcdef" for letter in text)


class Mistake(Exception):
    """Something that the user wrote and cannot be meant. One line, with what is expected."""


def _split(text: str) -> tuple[int, str]:
    digits = len(text) - len(text.lstrip("0123456789"))
    if not 1 <= digits <= 15:
        return -1, ""
    return int(text[:digits]), text[digits:]


def parse_size(text: str) -> int:
    """Bytes of `60G`, `512MiB` (G and GiB are 2^30 bytes).

    Raises:
        Mistake: no such size, or 0.
    """
    count, unit = _split(text)
    factor = SIZES.get(unit, 0)
    if not 0 < count * factor <= LARGEST:
        raise Mistake(f"got {text!r}, expected a size such as 60G or 512M (G is 2^30 bytes)")
    return count * factor


def parse_duration(text: str) -> int:
    """Seconds of `8h`, `90min`, `2d`.

    Raises:
        Mistake: no such duration, or 0.
    """
    count, unit = _split(text)
    factor = DURATIONS.get(unit, 0)
    if not 0 < count * factor <= 10_000 * 86400:
        raise Mistake(f"got {text!r}, expected a duration such as 30min, 8h or 2d")
    return count * factor


def show_size(count: int) -> str:
    """`61.3 GiB`; whole MiB below one GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def show_duration(seconds: float) -> str:
    """`2h 05min`, `3min 07s`, `4.2s`."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h {whole // 60 % 60:02d}min"
    if whole >= 60:
        return f"{whole // 60}min {whole % 60:02d}s"
    return f"{seconds:.1f}s"
