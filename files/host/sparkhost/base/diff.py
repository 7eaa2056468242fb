"""Differences of text files, as `--diff` shows them: without the secrets of those who share the file with us."""

from __future__ import annotations

import difflib
import re

DIFF_LIMIT = 64 * 1024
"""Bytes of both files together."""
# Names whose values are nobody's business: password=, HTTP_PROXY_PASSWORD=, "registry-token": …
WORDS = r"passw(?:or)?d|passphrase|\bpass\b|secret|token|cred(?:ential)?s?\b|(?:api|access|private)[_-]?key"
SECRET = rf"(?:{WORDS})[\w.-]{{0,80}}"
MASK = "***"
MASKS = (
    # A line that is one assignment, as in /etc/environment: all of its value.
    re.compile(
        rf"(^[-+ ][ \t]*(?:export[ \t]+)?[\w.-]{{0,80}}{SECRET}[ \t]*=[ \t]*)[^\n]+", re.IGNORECASE | re.MULTILINE
    ),
    # Within a line: an option of fstab, a key of JSON, whose value may be quoted.
    re.compile(rf"""({SECRET}["']?[ \t]*[=:][ \t]*)(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,;"']+)""", re.IGNORECASE),
    # Of an address: who logs in, and how.
    re.compile(r"(\w://)[^/\s\"'@]*(?:@[^/\s\"'@]*)*(?=@)"),
)


def text_diff(path: str, old: bytes, new: bytes) -> str:
    """Unified diff with what looks like a secret masked, empty for binary or large files.

    Why: it goes to terminals, logs and reports. What an admin wrote next to our lines goes with it.
    """
    if b"\0" in old + new or len(old) + len(new) > DIFF_LIMIT:
        return ""
    lines = difflib.unified_diff(
        old.decode(errors="replace").splitlines(keepends=True),
        new.decode(errors="replace").splitlines(keepends=True),
        fromfile=path,
        tofile=path,
        n=1,
    )
    return masked("".join(line if line.endswith("\n") else f"{line}\n" for line in lines))


def masked(text: str) -> str:
    """A diff without the values of what looks like a secret by its name, and without logins in addresses."""
    for pattern in MASKS:
        text = pattern.sub(rf"\1{MASK}", text)
    return text
