"""The probe on this machine: its limits, its document, and that it is one program with nothing installed."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from sparkfleet.audit.probe import program
from sparkfleet.audit.probe.environment import parsed, shown
from sparkfleet.audit.probe.frame import BadFrame, framed, unframed
from sparkfleet.audit.probe.look import Seen, look, read, run
from sparkfleet.settings import HostSettings

DOCUMENT = {"a": "é\x1b\n</script>", "b": [1]}


def test_a_document_survives_noise_around_it() -> None:
    noisy = b"Welcome!\r\n\x1b[1m" + framed("t", DOCUMENT).encode().replace(b"\n", b"\r\n") + b"bye"
    assert unframed(framed("t", DOCUMENT).encode(), "t") == DOCUMENT
    assert unframed(noisy, "t") == DOCUMENT


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "no document"),
        (framed("other", DOCUMENT).encode(), "no document"),
        (framed("t", DOCUMENT).encode()[:-10], "cut or garbled"),
        (framed("t", DOCUMENT).encode()[:30], "no length|cut"),
        (framed("t", DOCUMENT).encode().replace(b'"a"', b'"ab"'), "cut or garbled"),
        (b"\n=sparkfleet-probe-begin t 3\n[1]\n=sparkfleet-probe-end t\n", "not a JSON object"),
        (b"\n=sparkfleet-probe-begin t 3\n{1}\n=sparkfleet-probe-end t\n", "not JSON"),
        (b"\n=sparkfleet-probe-begin t -3\n{}\n=sparkfleet-probe-end t\n", "no length"),
        (b"\n=sparkfleet-probe-begin t 99999999999999\n{}\n", "no length"),
        (b"\n=sparkfleet-probe-begin t 50000\n" + b"[" * 50000 + b"\n=sparkfleet-probe-end t\n", "not JSON"),
    ],
)
def test_what_is_no_document_is_refused(answer: bytes, said: str) -> None:
    with pytest.raises(BadFrame, match=said):
        unframed(answer, "t")


def test_a_command_ends_at_its_limits_with_all_that_it_started() -> None:
    began = time.monotonic()
    sleep = f"sleep 77{os.getpid()}"  # nobody else's
    hung = run(("/bin/sh", "-c", f"echo before; {sleep} & {sleep}"), seconds=2.0)
    assert (hung.rc, hung.error, hung.output) == (124, "no end within 2 s", "before\n")
    endless = run(("yes",), limit=1000)
    assert (endless.rc, endless.error, len(endless.output)) == (124, "printed more than 1000 bytes", 1000)
    deaf = run(("/bin/sh", "-c", f"exec 1>&- 2>&-; {sleep}"), seconds=0.5)
    assert deaf.rc == 124
    assert time.monotonic() - began < 20
    assert subprocess.run(["pgrep", "-fx", sleep], capture_output=True, check=False).stdout == b""


def test_what_a_command_says_is_kept() -> None:
    assert run(("/bin/sh", "-c", "cat; echo oops >&2; exit 3"), data=b"in")[1:] == ("in", 3, "oops")
    assert run(("/nonexistent/x",))[1:] == ("", 127, "No such file or directory")
    assert run(("printf", "\\377")).output == "\\xff"
    assert read("/nonexistent/y") == Seen("cat /nonexistent/y", "", 1, "/nonexistent/y: No such file or directory")
    assert read("/dev/zero", limit=10).rc == 124


def test_a_look_that_fails_is_an_observation_and_not_the_end() -> None:
    def bad(parameters: object) -> dict[str, Seen]:
        raise OSError("no")

    found = look({"bad": bad, "good": lambda parameters: {"good": Seen("x", "y")}}, {})
    assert found["bad"]["error"] == "the probe cannot look: OSError: no"
    assert found["good"] == {"command": "x", "output": "y", "rc": 0, "error": ""}


def test_only_variables_that_are_asked_for_are_kept() -> None:
    variables = parsed("Welcome to this host\nA=1\0SECRET=x\0B=two\nlines\0")
    assert shown(variables, ["A", "B", "C"]) == "3 variables\nA=1\nB=two\\nlines\n"


def test_it_runs_as_one_program_and_says_where_it_looked() -> None:
    """With an empty environment and directory, as a host without anything of ours has it."""
    settings = HostSettings.model_validate({"cuda_env": {"home": "/opt/cuda-x", "variables": {"SITE_NOTE": "a"}}})
    done = subprocess.run(
        ["/bin/sh", "-c", program.command()],
        input=program.source() + program.parameters(settings, "t", ssh=False, seconds=100),
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "SITE_NOTE": "b", "SECRET": "hunter2"},
        cwd="/",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    document = unframed(done.stdout, "t")
    assert document["version"] == 1
    assert len(document["boot_id"]) == 36
    assert "SITE_NOTE=b" in document["observations"]["env_ssh_command"]["output"]
    assert "hunter2" not in json.dumps(document)
    for seen in document["observations"].values():
        assert set(seen) == {"command", "output", "rc", "error"}


def test_its_command_line_means_the_same_to_every_login_shell() -> None:
    assert set(program.command()) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 '/-.;=()")
    assert len(program.source()) < 40_000
