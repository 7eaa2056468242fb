"""`sparkfleet notify`: what is told when, and each way against a server of its own here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sparkfleet.exit_codes import CommandFailed
from sparkfleet.notify import notices, ways
from sparkfleet.notify.notices import KINDS, Message, State
from sparkfleet.status.attention import Level, Need
from tests.doubles import sshd, status_host

NOW = 1_800_000_000.0
KILL = Need(Level.ACT, "kill", "train.py was killed 5 s ago", "1799999995")
GONE = Need(Level.ACT, "gone", "is gone: no route")
HEAT = Need(Level.ACT, "heat", "91 °C: Sparks shut down at 91")
EVIL = "<!channel> & \x1b[31m\r\nBcc: all@example.org"


def looked(state: State, found: dict[str, list[Need]], now: float) -> tuple[State, tuple[str, ...]]:
    """Another look; what was told, by ways that all took it."""
    state, over = notices.seen(state, found, KINDS, now)
    state, message = notices.due(state, over, now)
    return State.of(json.loads(json.dumps(state.as_json()))), message.lines if message else ()


def test_what_is_new_is_told_once_what_lasts_once_a_day_and_what_is_over_too() -> None:
    state, said = looked(State(), {"a": [HEAT]}, NOW)
    assert said == (f"a: {HEAT.text}",)
    for minute in range(1, 5):
        hotter = Need(Level.ACT, "heat", f"{91 + minute} °C: Sparks shut down at 91")
        state, said = looked(state, {"a": [hotter]}, NOW + 60 * minute)
        assert said == ()
    state, said = looked(state, {"a": [HEAT]}, NOW + notices.AGAIN + 1)
    assert said == (f"a: still: {HEAT.text}",)
    state, said = looked(state, {"a": []}, NOW + notices.AGAIN + 61)
    assert said == (f"a: no longer: {HEAT.text}",)
    assert looked(state, {"a": []}, NOW + notices.AGAIN + 121)[1] == ()


def test_each_kill_is_told_once_and_is_never_over() -> None:
    state, said = looked(State(), {"a": [KILL]}, NOW)
    assert len(said) == 1
    second = Need(Level.ACT, "kill", "other.py was killed 1 s ago", "1800000059")
    state, said = looked(state, {"a": [second]}, NOW + 60)
    assert said == (f"a: {second.text}",)
    assert looked(state, {"a": []}, NOW + 4000)[1] == ()


def test_a_host_is_gone_when_it_was_so_twice_and_what_was_told_of_it_is_not_over() -> None:
    state, said = looked(State(), {"a": [HEAT], "b": []}, NOW)
    state, said = looked(state, {"a": [GONE], "b": [GONE]}, NOW + 60)
    assert said == ()
    state, said = looked(state, {"a": [GONE], "b": []}, NOW + 120)
    assert said == (f"a: {GONE.text}",)
    state, said = looked(state, {"a": [HEAT], "b": []}, NOW + 180)
    assert said == (f"a: no longer: {GONE.text}",)


def test_an_hour_has_an_end_of_messages_and_nothing_is_lost() -> None:
    state, told = State(), 0
    for minute in range(30):
        kill = Need(Level.ACT, "kill", f"job {minute}", str(minute))
        state, said = looked(state, {f"h{minute}": [kill]}, NOW + 60 * minute)
        told += bool(said)
    assert told == notices.MOST
    state, said = looked(state, {}, NOW + notices.HOUR + 10)
    assert len([line for line in said if ": job " in line]) == 30 - notices.MOST


def test_a_whole_fleet_is_one_message_of_some_lines() -> None:
    state, over = notices.seen(State(), {f"h{at}": [HEAT] for at in range(200)}, KINDS, NOW)
    _, message = notices.due(state, over, NOW)
    assert message is not None
    assert len(message.lines) == notices.LINES + 1
    assert message.lines[-1] == f"and {200 - notices.LINES} more: sparkfleet status"
    assert message.title.endswith("(+199)")


def test_a_pending_reboot_is_for_who_looks_and_kinds_can_be_chosen() -> None:
    reboot = Need(Level.LOOK, "reboot", "a reboot is pending")
    assert looked(State(), {"a": [reboot]}, NOW)[1] == ()
    state, over = notices.seen(State(), {"a": [KILL, HEAT]}, ["heat"], NOW)
    _, message = notices.due(state, over, NOW)
    assert message is not None
    assert message.lines == (f"a: {HEAT.text}",)


class Web:
    """A server that keeps what it is sent."""

    def __init__(self, code: int = 200) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, dict(self.headers), body))
                self.send_response(code)
                self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Mail:
    """A mail server that keeps one message (RFC 5321)."""

    def __init__(self) -> None:
        self.got = b""
        self.to: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 here\r\n")
            for line in lines:
                word = line[:4].upper()
                if word == b"RCPT":
                    self.to.append(line.strip())
                if word == b"DATA":
                    connection.sendall(b"354 go\r\n")
                    while (part := lines.readline()) != b".\r\n":
                        self.got += part
                connection.sendall(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                if word == b"QUIT":
                    return


MESSAGE = Message(f"sparkfleet: a: {EVIL}", ("a: first", f"b: {EVIL}"), True)


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as one:
        yield one


def test_ntfy_gets_lines_a_title_and_a_priority(web: Web) -> None:
    ways.way(f"ntfy http://127.0.0.1:{web.port}/sparks tk_secret").send(MESSAGE)
    ((path, headers, body),) = web.got
    assert path == "/sparks"
    assert headers["Authorization"] == "Bearer tk_secret"
    assert headers["Priority"] == "high"
    assert headers["Title"].startswith("sparkfleet: a: <!channel> & \\x1b[31m")
    assert "Bcc" not in headers
    assert body.decode().splitlines()[0] == "a: first"


def test_a_webhook_gets_text_that_is_no_markup(web: Web) -> None:
    ways.way(f"webhook http://127.0.0.1:{web.port}/services/T0/B0/secret").send(MESSAGE)
    ((path, headers, body),) = web.got
    assert (path, headers["Content-Type"]) == ("/services/T0/B0/secret", "application/json")
    text = json.loads(body)["text"]
    assert "&lt;!channel&gt; &amp; " in text
    assert "<" not in text


def test_a_webhook_that_refuses_or_points_elsewhere_is_named_without_its_secret() -> None:
    for code in (403, 302):
        with Web(code) as web:
            one = ways.way(f"webhook http://127.0.0.1:{web.port}/services/secret")
            with pytest.raises(ways.NotSent, match=f"127.0.0.1 answers {code}") as found:
                one.send(MESSAGE)
            assert "secret" not in f"{found.value} {one.shown}"
            assert [path for path, _, _ in web.got] == ["/services/secret"], "nothing went elsewhere"


def test_mail_goes_by_a_server_and_a_title_makes_no_header() -> None:
    mail = Mail()
    ways.way(f"mail ops@example.org smtp://127.0.0.1:{mail.port}").send(MESSAGE)
    assert mail.to == [b"RCPT TO:<ops@example.org>"] or mail.to == [b"rcpt TO:<ops@example.org>"]
    got = message_from_bytes(mail.got, policy=policy.default)
    assert got["To"] == "ops@example.org"
    assert got["Bcc"] is None
    assert got["Subject"].startswith("sparkfleet: a: <!channel>")
    assert "a: first" in got.get_content()


def test_a_command_gets_json_and_what_it_says_when_it_fails_is_told(tmp_path: Path) -> None:
    program = tmp_path / "page"
    program.write_text(f'#!/bin/sh\ncat > {tmp_path}/got; echo "$1 $SPARKFLEET_NOTICE" > {tmp_path}/words\n')
    program.chmod(0o755)
    ways.way(f"command {program} '--team sparks'").send(MESSAGE)
    got = json.loads((tmp_path / "got").read_text())
    assert got == {"title": MESSAGE.title, "lines": list(MESSAGE.lines), "urgent": True}
    assert (tmp_path / "words").read_text().startswith("--team sparks sparkfleet: a: <!channel>")
    program.write_text("#!/bin/sh\necho no modem >&2; exit 3\n")
    with pytest.raises(ways.NotSent, match="ended with 3: no modem"):
        ways.way(f"command {program}").send(MESSAGE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pigeon x", "expected one of mail, ntfy, webhook, command"),
        ("mail nobody", "expected one address"),
        ("mail a@example.org ftp://x", "expected a server"),
        ("webhook file:///etc/passwd", "https://"),
        ("ntfy", "expected ntfy and an address"),
        ("command page", "with its whole path"),
        ("command '", "quotation"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ways"
    path.write_text(f"# ways\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(CommandFailed) as found:
        ways.read(path)
    assert f"{path}:2: " in str(found.value)
    assert said in str(found.value)


def test_a_file_of_ways_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ways"
    path.write_text("mail ops@example.org\n")
    path.chmod(0o644)
    with pytest.raises(CommandFailed, match="chmod 600"):
        ways.read(path)


def test_the_command_tells_a_kill_once_and_again_where_nobody_took_it(tmp_path: Path) -> None:
    host = status_host.Host(status_host.says(kill=status_host.kill("train.py")))
    path = tmp_path / "ways"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}

    def called(*more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "sparkfleet.cli", "notify", "--fleet", str(fleet), "--ways", str(path), *more]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=90, check=False)

    with ExitStack() as stack:
        port = stack.enter_context(sshd.serving(host.command, kind=status_host.Server))
        web = stack.enter_context(Web())
        fleet = sshd.fleet_of(tmp_path, {"spark1": port})
        path.touch(0o600)
        path.write_text("webhook http://127.0.0.1:1/secret\n")
        refused = called()
        assert refused.returncode == 1
        assert "webhook 127.0.0.1: not sent" in refused.stderr
        assert "secret" not in refused.stderr
        path.write_text(f"webhook http://127.0.0.1:{web.port}/x\n")
        assert called().returncode == 0
        assert called().returncode == 0
        ((_, _, body),) = web.got
        assert "spark1: train.py was killed" in json.loads(body)["text"]
        assert called("--test").returncode == 0
        assert "this is a test" in json.loads(web.got[-1][2])["text"]
        units = called("--print").stdout
    assert "OnCalendar=*-*-* *:*:00" in units
    assert f"--ways {path}" in units
    assert "secret" not in units
