"""The ways on which a message goes: mail, ntfy, a webhook as Slack has it, a command. A line of a file each.

    mail ops@example.org                              by the mail server of this machine (localhost, port 25)
    mail ops@example.org smtp://mail.example.org:25   by another; STARTTLS where it offers that
    ntfy https://ntfy.example.org/sparks              with a token behind it where the topic wants one
    webhook https://hooks.example.com/services/T0/B0/xyz
    command /usr/local/bin/page --team sparks

What hosts have said is text in all of them: no command line, no header and no markup is made of it.
"""

from __future__ import annotations

import json
import os
import shlex
import smtplib
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sparkfleet import child, foreign
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.notify.notices import Message
from sparkfleet.sudo_password import PASSWORD_COMMAND

SECONDS = 20.0
"""Most that a way may take."""
SUMMARY = "SPARKFLEET_NOTICE"
"""A command's variable with the title; the whole message is JSON on its standard input."""
MOST = 64 * 1024
KINDS = ("mail", "ntfy", "webhook", "command")


class NotSent(Exception):
    """A way has not taken the message. One line, which names no secret."""


@dataclass(frozen=True)
class Way:
    """How a message goes. `shown`: the way without what only its users should know."""

    shown: str
    send: Callable[[Message], None]


def read(path: Path) -> list[Way]:
    """The ways of a file.

    Raises:
        CommandFailed: a line for each mistake: file, line, what is expected.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            text = f"{path}: others can read it, and addresses of webhooks are secrets: chmod 600 {path}"
            raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
        with path.open("rb") as stream:
            lines = stream.read(MOST).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise CommandFailed(f"{path}: cannot be read: {reason}", ExitCode.BAD_CONFIGURATION) from error
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(way(line))
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
    if wrong or not found:
        text = "\n".join(wrong) or f"{path}: names no way: write a line such as: mail ops@example.org"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
    return found


def way(line: str) -> Way:
    """A line's way. Raises ValueError: what is expected."""
    kind, *words = shlex.split(line)
    match kind, words:
        case "mail", [to]:
            return _mail(to, "smtp://localhost:25")
        case "mail", [to, server]:
            return _mail(to, server)
        case "ntfy", [url]:
            return _ntfy(url, "")
        case "ntfy", [url, token]:
            return _ntfy(url, token)
        case "webhook", [url]:
            return Way(f"webhook {_host(url)}", lambda message: _post(url, _slack(message), _JSON))
        case "command", [program, *_] if Path(program).is_absolute():
            return Way(f"command {program}", lambda message: _command(words, message))
        case "command", _:
            raise ValueError("expected command and a program with its whole path")
        case (("mail" | "ntfy" | "webhook"), _):
            raise ValueError(f"expected {kind} and an address: see sparkfleet notify --help")
    raise ValueError(f"got {foreign.line(kind, 40)!r}, expected one of {', '.join(KINDS)}")


_JSON = {"Content-Type": "application/json"}


def _host(url: str) -> str:
    """The host of an address, for messages: the rest of a webhook is its password. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or not url.isprintable():
        raise ValueError("expected an address that begins with https://")
    return parts.hostname


def _mail(to: str, server: str) -> Way:
    parts = urlsplit(server)
    if "@" not in to or not to.isprintable() or any(char in to for char in " ,;<>"):
        raise ValueError(f"got {foreign.line(to, 80)!r}, expected one address such as ops@example.org")
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("expected a server such as smtp://mail.example.org:25, or smtps://")
    secure, host = parts.scheme == "smtps", parts.hostname
    port = parts.port or (465 if secure else 25)

    def send(message: Message) -> None:
        mail = EmailMessage()
        # A header is one line: a title has none of the characters that would end it.
        mail["Subject"], mail["To"] = foreign.line(message.title, 150), to
        mail["From"] = f"sparkfleet@{socket.gethostname()}"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation message comes back
        mail.set_content("\n".join(message.lines) + "\n")
        try:
            kind = smtplib.SMTP_SSL if secure else smtplib.SMTP
            with kind(host, port, timeout=SECONDS) as server:
                if not secure and server.has_extn("starttls"):
                    server.starttls()
                server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSent(f"{host}:{port}: {foreign.line(str(error), 200)}") from error

    return Way(f"mail {to}", send)


def _ntfy(url: str, token: str) -> Way:
    """Headers and priorities: https://docs.ntfy.sh/publish/"""
    host = _host(url)
    if not token.isascii() or not token.isprintable():
        raise ValueError("expected a token of plain characters")

    def send(message: Message) -> None:
        title = foreign.line(message.title, 150).encode("ascii", "replace").decode()
        headers = {"Title": title, "Priority": "high" if message.urgent else "default", "Tags": "warning"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        _post(url, "\n".join(message.lines).encode(), headers)

    return Way(f"ntfy {host}", send)


def _slack(message: Message) -> bytes:
    """Slack's markup has three characters that a text must not bring along (<!channel> calls everybody).

    https://docs.slack.dev/messaging/formatting-message-text/
    """
    text = "\n".join(message.lines)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, entity)
    return json.dumps({"text": text}).encode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A message goes where its line says, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    """Raises NotSent."""
    request = urllib.request.Request(url, body, {"User-Agent": "sparkfleet", **headers}, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
            answer.read(4096)
    except urllib.error.HTTPError as error:
        with error:
            raise NotSent(f"{_host(url)} answers {error.code}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NotSent(f"{_host(url)}: {foreign.line(str(reason), 200)}") from error


def _command(words: list[str], message: Message) -> None:
    """Raises NotSent."""
    environment = {key: value for key, value in os.environ.items() if key != PASSWORD_COMMAND}
    environment[SUMMARY] = foreign.line(message.title, 200)
    data = json.dumps({"title": message.title, "lines": list(message.lines), "urgent": message.urgent}).encode()
    try:
        done = child.run(words, child.Limits(SECONDS, last=True), data, env=environment)
    except OSError as error:
        raise NotSent(f"{words[0]}: cannot be started: {error.strerror}") from error
    except child.OutOfBounds as error:
        raise NotSent(f"{words[0]}: {error}") from error
    if done.rc:
        said = done.lines()
        raise NotSent(f"{words[0]}: ended with {done.rc}: {foreign.line(said[-1], 200) if said else 'no message'}")
