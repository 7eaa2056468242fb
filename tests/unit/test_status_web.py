"""Who may see the page of `sparkfleet watch --web`, and what its server does with the rest."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkfleet.status.records import Records
from sparkfleet.status.stream import Heard, Link, Streams
from sparkfleet.status.web import Board, Server


class Calm(Streams):
    """One host that is gone, without a connection."""

    def heard(self) -> dict[str, Heard]:
        return {"spark1": Heard(Link.GONE, None, None, "no route")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    board = Board(Calm([]), Records(tmp_path / "fleet.yaml", store=tmp_path))
    board.look()
    one = Server(board, 0)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield one
    one.over.set()
    one.shutdown()
    one.server_close()


def asked(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Code, headers and the body; of one without an end its beginning."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read1(1 << 20) if answer.length is None else answer.read(1 << 20)
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_who_has_no_token_and_who_comes_by_another_name_gets_nothing(server: Server) -> None:
    cookie = f"{server.cookie}={server.token}"
    for path in ("/", "/events", "/trace?host=spark1"):
        assert asked(server, path)[0] == 403
        assert asked(server, path, Cookie=cookie[:-1])[0] == 403
        assert asked(server, path, Cookie=f"other={server.token}")[0] == 403
        assert asked(server, path, Cookie=cookie, Host=f"evil.example:{server.server_port}")[0] == 421
        assert asked(server, path, Cookie=cookie)[0] == 200
        # Through `ssh -L` the name is loopback's, and the port another.
        assert asked(server, path, Cookie=cookie, Host="localhost:9999")[0] == 200
    assert asked(server, "/?token=x")[0] == 403
    assert asked(server, "/trace?host=../../etc/passwd", Cookie=cookie)[0] == 404
    assert asked(server, "/favicon.ico", Cookie=cookie)[0] == 404


def test_the_token_goes_from_the_address_into_a_cookie_of_this_page_alone(server: Server) -> None:
    code, headers, _ = asked(server, f"/?token={server.token}")
    assert (code, headers["Location"]) == (303, "/")
    assert headers["Set-Cookie"] == f"{server.cookie}={server.token}; HttpOnly; SameSite=Strict; Path=/"
    assert str(server.server_port) in server.cookie
    assert len(server.token) >= 32


def test_the_page_may_run_its_own_script_and_ask_where_it_came_from(server: Server) -> None:
    _, headers, body = asked(server, "/", Cookie=f"{server.cookie}={server.token}")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    text = body.decode()
    assert text.count("<script>") == text.count("</script>") == 1
    assert re.findall(r'(?:src|href)="([^"]*)"', text.partition("<script>")[0]) == ["data:,", "#hosts"]
    assert not re.search(r"\son\w+=|\sstyle=", text.partition("<script>")[0])


def test_pages_have_an_end(server: Server) -> None:
    cookie = f"{server.cookie}={server.token}"
    server.board.pages = threading.Semaphore(1)
    first = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    first.request("GET", "/events", headers={"Cookie": cookie})
    told = first.getresponse().read1(1 << 16)
    assert told.startswith(b"event: fleet\ndata: {")
    assert b'"link":"gone"' in told
    assert asked(server, "/events", Cookie=cookie)[0] == 503
    first.close()


def test_only_what_has_changed_is_told(server: Server) -> None:
    version, whole = server.board.since(0)
    assert '"hosts":[{"name":"spark1"' in whole
    assert server.board.since(version) == (version, "")
    server.board.look()
    assert server.board.since(version)[1] == "", "nothing of the host has changed"
