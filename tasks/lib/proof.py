"""Proves from here that people still get in, before a guarded change to SSH is kept.

The host has made the change and takes it back by itself unless it hears otherwise (`sparkhost.ssh.guard`). From here: a
login through an sshd that reads the new files while the old one still serves; sshd's restart; a login over a new
connection; and over that very connection the word that the change may stay. Whatever fails, the change is taken back
over the control connection, which outlives sshd's restart (KillMode=process); should that be lost too, by the host.
"""

from __future__ import annotations

import shlex
from typing import Any

from paramiko import SSHException
from paramiko.channel import Channel
from pyinfra import logger
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.ssh import SSHConnector

from sparkfleet.foreign import line
from sparkfleet.mistakes import mistake
from sparkhost.base.resource import Resource
from sparkhost.ssh.guard import GuardStep
from tasks.lib import bounds, remote
from tasks.lib.answer import Busy, Malformed, parsed
from tasks.lib.connection import SUDO_PASSWORD, SUDO_PLAIN, is_root, password_of
from tasks.lib.way import Way

# Seconds, for each part of a login and each step; the host's own limit (ssh.confirm_within) is the one that counts.
LOGIN_TIMEOUT = 60
STEP_TIMEOUT = 180
SAID_BYTES = 64 * 1024
"""Of what a trial's sshd writes."""


def trial_sshd(score: int) -> str:
    """An sshd like the one to come: from the same files, started by PID 1 with the same score."""
    return shlex.join(
        (
            *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-p", f"OOMScoreAdjust={score}"),
            *("-p", "KillMode=process", "-p", "EnvironmentFile=-/etc/default/ssh"),
            # systemd puts the site's options in, as it does for ssh.service. -e: sshd's reasons come to us.
            *("/usr/sbin/sshd", "-i", "-e", "$SSHD_OPTS"),
        )
    )


class NotProved(Exception):
    """A step of the proof failed. One line."""


class Login(SSHConnector):
    """One more login to a host, with the settings, keys and host-key policy of the first; `sock`: not over TCP."""

    def __init__(self, state: State, host: Host, sock: Channel | None = None) -> None:
        super().__init__(state, host)
        self.sock = sock

    def make_paramiko_kwargs(self) -> dict[str, Any]:
        kwargs = {**super().make_paramiko_kwargs(), "banner_timeout": LOGIN_TIMEOUT, "auth_timeout": LOGIN_TIMEOUT}
        return {**kwargs, "sock": self.sock} if self.sock else kwargs

    def close(self) -> None:
        if self.client:
            self.client.close()


def prove(state: State, host: Host, guarded: dict[str, Any], way: Way) -> list[str]:
    """Proves the change that this run has just made on a host, or has it taken back.

    `guarded`: the request of the resource that made it. Returns what went wrong, one line each; none: proved and kept.
    """
    try:
        if not isinstance(host.connector, SSHConnector):
            step(way, host.connector, guarded, "restart")
            step(way, host.connector, guarded, "confirm", local=True)
            say(host, "kept: sshd answers; from the host itself no login over the network can be tried")
            return []
        if guarded["trial_login"]:
            say(host, "armed: trial login")
            trial(way, state, host, host.connector, trial_sshd(guarded["oom_score_adjust"]))
        say(host, "armed: restart of sshd, where it needs one")
        step(way, host.connector, guarded, "restart")
        say(host, "armed: login over a new connection")
        login = Login(state, host)
        try:
            check_login(way, login)
            say(host, "armed: confirmation over the new connection")
            step(way, login, guarded, "confirm")
        finally:
            login.close()
    except Exception as error:  # whatever it is, the change is not proved
        return [taken_back(way, state, host, guarded, one_line(error))]
    say(host, "kept: a new login works, and its session can be killed when memory runs out")
    return []


def say(host: Host, text: str, measure: str = "ssh") -> None:
    logger.info(f"{host.print_prefix}{measure}: {text}")


EXPECTED = (NotProved, OSError, EOFError, SSHException, PyinfraError, Malformed, Busy)


def one_line(error: Exception) -> str:
    return line(" ".join(str(error).split())) or type(error).__name__ if isinstance(error, EXPECTED) else mistake(error)


def step(way: Way, connector: BaseConnector, guarded: dict[str, Any], name: str, **values: Any) -> None:
    """Has the host do one step. Raises what `ask` does."""
    ask(way, connector, name, GuardStep(guarded["token"], name, guarded.get("restart_for", []), **values))


def ask(way: Way, connector: BaseConnector, name: str, resource: Resource, timeout: int = STEP_TIMEOUT) -> None:
    """Has the host do one part of a proof.

    Raises:
        NotProved: the host says that it failed, or does not answer.
    """
    request = remote.request("apply", [{"name": "proof", "resources": [resource.to_json()]}])
    ok, output = way.run(connector, remote.COMMAND, request, timeout)
    if not ok or not output.stdout_lines:
        raise NotProved(f"{name}: {(output.stderr_lines or ['no answer'])[-1]}")
    result = parsed(output.stdout_lines[-1], "applied")["applied"]
    for problem in [*result["refused"], *([result["error"]] if result["error"] else [])]:
        raise NotProved(problem)


def trial(way: Way, state: State, host: Host, control: SSHConnector, command: str) -> None:
    """A whole login through an sshd of its own, over the control connection; the running sshd knows nothing of it.

    Raises:
        NotProved: it was refused, or is no good; with sshd's own reason where it gave one.
    """
    transport = control.client.get_transport() if control.client else None
    if transport is None:
        raise NotProved("the control connection is gone")
    with bounds.within(LOGIN_TIMEOUT):
        channel = transport.open_session(timeout=LOGIN_TIMEOUT)
        channel.settimeout(LOGIN_TIMEOUT)
        if is_root(control):
            channel.exec_command(command)
        elif host.connector_data.get("sudo_wants_password"):
            channel.exec_command(f"{' '.join(SUDO_PASSWORD)} -- {command}")
            # sudo reads to the end of the line and no further; the rest is for sshd.
            channel.sendall(f"{password_of(host)}\n".encode())
        else:
            channel.exec_command(f"{' '.join(SUDO_PLAIN)} -- {command}")
    login = Login(state, host, channel)
    try:
        check_login(way, login)
    except Exception as error:
        raise NotProved(f"a trial login failed: {one_line(error)}{said(channel)}") from error
    finally:
        login.close()
        channel.close()


def said(channel: Channel) -> str:
    """What the trial's sshd wrote, on one line."""
    text = b""
    while len(text) < SAID_BYTES and channel.recv_stderr_ready():
        text += channel.recv_stderr(SAID_BYTES)
    reason = line("; ".join(each.strip() for each in text.decode(errors="replace").splitlines() if each.strip()))
    return f" (sshd: {reason})" if reason else ""


def check_login(way: Way, login: Login) -> None:
    """Logs in and looks: a session that can be killed, and sudo.

    Raises:
        NotProved: a session out of the OOM killer's reach, or no sudo.
        PyinfraError, OSError: no login.
    """
    login.connect()
    ok, output = Way().run(login, "cat /proc/self/oom_score_adj", None, LOGIN_TIMEOUT)
    score = output.stdout.strip()
    if not ok or score.startswith("-") or not score.isdecimal():
        told = line(score or output.stderr.strip())
        raise NotProved(f"its session has oom_score_adj {told}, so it could not be killed")
    ok, output = way.run(login, "true", None, LOGIN_TIMEOUT)
    if not ok:
        raise NotProved(f"it has no sudo: {(output.stderr_lines or ['no message'])[-1]}")


def taken_back(way: Way, state: State, host: Host, guarded: dict[str, Any], reason: str, measure: str = "ssh") -> str:
    """Takes the change back over the control connection, and checks that people get in; returns the report."""
    say(host, "taking it back", measure)
    try:
        step(way, host.connector, guarded, "take_back", reason=reason)
    except Exception as error:
        seconds = guarded["confirm_within"]
        return (
            f"not proved: {reason}; and the host cannot be told ({one_line(error)}): it takes the change back by "
            f"itself within {seconds:.0f} s of having begun it"
        )
    if not isinstance(host.connector, SSHConnector):
        return f"taken back: {reason}"
    login = Login(state, host)
    try:
        login.connect()
    except Exception as error:
        return f"taken back: {reason}; BUT NO LOGIN WORKS NOW ({one_line(error)}): go to the host's console"
    finally:
        login.close()
    return f"taken back: {reason}; logins work as before"
