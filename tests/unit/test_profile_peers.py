"""A series over several hosts. ssh is a double: it runs what it is given on this host, in the same directory."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sparkhost.base.units import MIB, Mistake
from sparkhost.tools.profile.cli import main
from sparkhost.tools.profile.peers import parse, part_of

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ["--plain", "--by", "processes", "--headroom", "512M", "--rate", "100"]
CODE = """
import sys, time
batch, rank, hosts = (int(word) for word in sys.argv[1:4])
held = bytearray(b"x") * ((batch * 32 + rank * 64) << 20)
open(f"seen-{rank}-of-{hosts}-{sys.argv[4]}", "w").close()
time.sleep(0.3)
"""
FAILS = "import sys, time; sys.exit(3) if sys.argv[1] == '1' else time.sleep(60)"


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory; ssh and spark-profile on the PATH, as on a host."""
    programs = tmp_path / "bin"
    programs.mkdir()
    source = f"import sys; sys.path.insert(0, {str(ROOT / 'files' / 'host')!r})\n"
    source += "from sparkhost.tools.profile.cli import main; sys.exit(main())"
    scripts = {
        # The last word is the peer's command line; a peer named "gone" cannot be reached.
        "ssh": 'for word; do :; done\ncase " $* " in *" gone "*) exit 255;; esac\nexec sh -c "$word"',
        "spark-profile": f'exec {shlex.quote(sys.executable)} -c {shlex.quote(source)} "$@"',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def steps(work: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((work / "spark-profile" / "results.json").read_text())["steps"]
    return found


def series(code: str, *words: str) -> list[str]:
    return [*PLAIN, *words, "--", sys.executable, "-c", code, "{batch}", "{rank}", "{hosts}", "{master}"]


def test_the_host_that_needs_most_counts(hosts: Path) -> None:
    assert main(series(CODE, "--peers", "spark-02,spark-03", "--vary", "batch=1,2", "--set", "master=10.0.0.1")) == 0
    assert {path.name for path in hosts.glob("seen-*")} == {f"seen-{rank}-of-3-10.0.0.1" for rank in range(3)}
    for step in steps(hosts):
        assert step["status"] == "ok"
        needs = [step["peers"]["spark-02"], step["peers"]["spark-03"]]
        for rank, peak in enumerate(needs, start=1):
            held = (step["value"] * 32 + rank * 64) * MIB
            assert held <= peak <= held + 48 * MIB
        assert step["peak"] == needs[1]


def test_a_part_that_fails_ends_the_others_and_is_named(hosts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    words = [*PLAIN, "--peers", "spark-02", "--vary", "batch=1", "--", sys.executable, "-c", FAILS, "{rank}", "{batch}"]
    assert main(words) == 1
    assert time.monotonic() - begun < 40
    assert steps(hosts)[0]["status"] == "failed"
    assert "spark-02: failed; see batch-1-spark-02.log" in capsys.readouterr().out


def test_a_peer_that_cannot_be_reached_fails_the_step(hosts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(series(CODE, "--peers", "gone", "--vary", "batch=1")) == 1
    assert steps(hosts)[0]["status"] == "failed"
    assert "gone: failed" in capsys.readouterr().out


def test_without_ssh_nothing_is_remembered(
    hosts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(hosts))
    assert main(series(CODE, "--peers", "spark-02", "--vary", "batch=1")) == 2
    assert "ssh: No such file or directory" in capsys.readouterr().err
    assert steps(hosts) == []


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a,a", "a,,b", "a b", "a;b"])
def test_what_is_no_list_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(Mistake, match="--peers: got"):
        parse(text)


def test_a_command_for_several_hosts_tells_them_apart(hosts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAIN, "--peers", "spark-02", "--", "true", "{batch}"]) == 2
    assert "the command has no {rank}" in capsys.readouterr().err
    assert main([*PLAIN, "--peers", "spark-02", "--set", "rank=1", "--", "true", "{batch}", "{rank}"]) == 2
    assert "--set: rank and hosts are given by --peers" in capsys.readouterr().err


@pytest.mark.parametrize("document", [{}, {"steps": []}, {"steps": [{"status": "ok", "peak": "x", "peaks": None}]}])
def test_a_peers_answer_of_another_form_is_no_result(document: dict[str, Any]) -> None:
    with pytest.raises((KeyError, IndexError, ValueError)):
        part_of(document)
