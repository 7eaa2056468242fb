"""The admin's own key: which public key goes to the host, and whether its private half can be used without a person."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkfleet.enrol.ssh import call
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings.problems import escaped

LINE = re.compile(r"((?:ssh|ecdsa|sk)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+=*)(?: ([^\r\n]*))?")
MAKE_ONE = "make one with `ssh-keygen -t ed25519` and name it with --key, or load one into your agent with `ssh-add`"


@dataclass(frozen=True)
class AdminKey:
    """A public key, and where ssh finds the private one."""

    line: str
    """As in authorized_keys."""
    identity: Path | None
    """For `ssh -i`: the private key, or the public key's file where the agent has the private one; None: the agent
    has it, and there is no file."""
    private: Path | None = None
    """The private key's file, where it can be used without a passphrase."""

    @property
    def data(self) -> str:
        return self.line.split(" ")[1]

    def __str__(self) -> str:
        kind, _, comment = [*self.line.split(" ", 2), ""][:3]
        return " ".join(
            part for part in (kind, escaped(comment), f"({self.identity})" if self.identity else "") if part
        )


def public_line(text: str) -> str | None:
    """The one public key that a text holds, as one line; None where it is something else, a private key above all."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    match = LINE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None or not match[0].isprintable():
        return None
    try:
        data = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return None
    # The key's data begins with its kind once more (RFC 4253, 6.6).
    kind = match[1].encode()
    return match[0] if data.startswith(len(kind).to_bytes(4, "big") + kind) else None


def agent_lines(settings: Mapping[str, Sequence[str]]) -> list[str]:
    """The public keys in the agent that ssh would ask; `settings` are those of `ssh -G`. None without an agent."""
    socket = settings.get("identityagent", ["SSH_AUTH_SOCK"])[0]
    if socket == "none":
        return []
    named = {} if socket in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK") else {"SSH_AUTH_SOCK": str(Path(socket).expanduser())}
    if not named and not os.environ.get("SSH_AUTH_SOCK"):
        return []
    words = [f"{key}={value}" for key, value in named.items()]
    answer = call(["env", *words, "ssh-add", "-L"], b"", 30.0, "ssh-add")
    return [line for text in answer.stdout.splitlines() if (line := public_line(text))]


def needs_passphrase(private: Path) -> bool:
    """Whether a private key cannot be read without one."""
    return call(["ssh-keygen", "-y", "-P", "", "-f", str(private)], b"", 30.0, str(private)).rc != 0


def named_key(path: Path, agent: Sequence[str]) -> AdminKey:
    """The key that the admin named: its public file, or a private one with the public one beside it.

    Raises:
        CommandFailed: no public key is there, or its private half cannot be used without a person.
    """
    path = path.expanduser()
    private = path.with_name(path.name.removesuffix(".pub"))
    public = private.with_name(f"{private.name}.pub")
    source = public if public.exists() else path
    try:
        line = public_line(source.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise CommandFailed(f"--key {path}: cannot be read: {error.strerror}", ExitCode.BAD_CONFIGURATION) from error
    if line is None:
        raise CommandFailed(
            f"--key {path}: expected one public key, as in ~/.ssh/id_ed25519.pub", ExitCode.BAD_CONFIGURATION
        )
    held = line.split(" ")[1] in [other.split(" ")[1] for other in agent]
    if private != source and private.is_file() and not needs_passphrase(private):
        return AdminKey(line, private, private)
    if held:
        return AdminKey(line, source)
    if private != source and private.is_file():
        raise CommandFailed(
            f"{private} has a passphrase and is not in your agent: run `ssh-add {private}` first",
            ExitCode.BAD_CONFIGURATION,
        )
    raise CommandFailed(
        f"--key {path}: its private key is neither beside it nor in your agent", ExitCode.BAD_CONFIGURATION
    )


def usual_key(settings: Mapping[str, Sequence[str]], agent: Sequence[str]) -> AdminKey:
    """The key that ssh itself would use for a host: from its identity files, else from the agent.

    Raises:
        CommandFailed: there is none that can be used without a person.
    """
    for name in settings.get("identityfile", ()):
        private = Path(name).expanduser()
        public = private.with_name(f"{private.name}.pub")
        if public.is_file() and (private.is_file() or public_line(public.read_text(errors="replace")) in agent):
            try:
                return named_key(public, agent)
            except CommandFailed:  # the next one may do; where none does, the message below says so
                continue
    if agent:
        return AdminKey(agent[0], None)
    raise CommandFailed(
        f"you have no SSH key that can be used without a passphrase: {MAKE_ONE}", ExitCode.BAD_CONFIGURATION
    )
