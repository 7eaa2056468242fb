"""How the probe's document travels: between two marks, with its length, so that noise and cuts are noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

BEGIN = "=sparkfleet-probe-begin"
END = "=sparkfleet-probe-end"
PASSWORD = "=sparkfleet-probe-wants-password"
"""A line with this and the token asks for the sudo password: one line on the probe's standard input."""


class BadFrame(ValueError):
    """The answer holds no whole document. One line that says why."""


def framed(token: str, document: dict[str, Any]) -> str:
    """The document as text between marks; ASCII only, whatever is in it."""
    text = json.dumps(document)
    return f"\n{BEGIN} {token} {len(text)}\n{text}\n{END} {token}\n"


def unframed(answer: bytes, token: str, loads: Callable[[bytes], Any] = json.loads) -> dict[str, Any]:
    """The document in an answer. What shells print before and after it is left out.

    `loads`: makes a value of its JSON, and raises ValueError where it is none or too much.

    Raises:
        BadFrame: there is none, it is cut, or it is no JSON object.
    """
    begin = f"\n{BEGIN} {token} ".encode()
    _, found, rest = answer.replace(b"\r\n", b"\n").partition(begin)
    if not found:
        raise BadFrame("no document of the probe in the answer")
    number, _, rest = rest.partition(b"\n")
    if not number.isdigit() or len(number) > 12:
        raise BadFrame("the probe's document has no length")
    length = int(number)
    if not rest[length:].startswith(f"\n{END} {token}\n".encode()):
        raise BadFrame(f"the probe's document is cut or garbled ({length} bytes were announced)")
    try:
        document = loads(rest[:length])
    except (ValueError, RecursionError) as error:
        raise BadFrame("the probe's document is not JSON") from error
    if not isinstance(document, dict):
        raise BadFrame("the probe's document is not a JSON object")
    return document
