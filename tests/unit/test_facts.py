"""Facts of a Spark by pyinfra, as a person asks for them."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import paramiko
import pytest
from pyinfra.api.exceptions import FactProcessError

from sparkfleet.facts import Applied, SlicePressure
from tests.doubles import sshd
from tests.unit.test_operations_anywhere import Spark, hosts, pyinfra


def fact(done: subprocess.CompletedProcess[str], host: str = "@local") -> Any:
    """What pyinfra prints of a fact."""
    assert done.returncode == 0, done.stdout
    text = done.stdout.partition("--> Fact data for: ")[2].partition("\n")[2]
    return json.JSONDecoder().raw_decode(text)[0][host]


def test_the_plan_of_a_measure(tmp_path: Path) -> None:
    spark = Spark()
    with ExitStack() as stack:
        call = ("fact", "sparkfleet.facts.Plan", "measure=swap", 'settings={"margin": "2GiB"}')
        found = fact(pyinfra(tmp_path, hosts(tmp_path, stack, one=spark), *call), "one")
    assert found["changes"] == [{key: sshd.CHANGE[key] for key in ("what", "summary", "diff")}]
    assert found["refused"] == []
    assert found["error"] is None
    assert spark.actions == ["plan"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["measure=swop"], "swop: unknown key, did you mean swap?"),
        (["measure=swap", 'settings={"mode": "of"}'], "swap.mode: got 'of', expected off or keep"),
    ],
)
def test_a_wrong_plan_is_one_line(tmp_path: Path, given: list[str], said: str) -> None:
    done = pyinfra(tmp_path, "@local", "fact", "sparkfleet.facts.Plan", *given)
    assert done.stdout.count(said) == 1, done.stdout
    assert "Traceback" not in done.stdout


def test_who_holds_gpu_memory(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{os.getpid()}, 512, /usr/bin/python3'\necho '4194305, [N/A], a, b'\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert fact(pyinfra(tmp_path, "@local", "fact", "sparkfleet.facts.GpuHolders", PATH=path)) == [
        {"pid": os.getpid(), "user": getpass.getuser(), "name": "/usr/bin/python3", "bytes": 512 * 2**20},
        {"pid": 4194305, "user": None, "name": "a, b", "bytes": None},
    ]


@pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="a kernel without PSI")
def test_pressure_is_read_as_the_kernel_writes_it() -> None:
    text = Path("/proc/pressure/memory").read_text()
    found = SlicePressure().process(text.splitlines())
    assert f"total={found['some']['total']}" in text
    assert set(found["full"]) == {"avg10", "avg60", "avg300", "total"}


def test_a_slice_that_is_not_there_has_no_pressure(tmp_path: Path) -> None:
    call = ("fact", "sparkfleet.facts.SlicePressure", "slice=$(touch made).slice")
    assert fact(pyinfra(tmp_path, "@local", *call)) == {}
    assert not (tmp_path / "made").exists()


def test_what_was_applied(tmp_path: Path) -> None:
    entry = {"measures": {"swap": {"result": "clean", "by": "ann\u001b[31m"}}, "deploys": [], "format": 1}

    def has(line: str, text: str, channel: paramiko.Channel) -> None:
        sshd.answer(channel, json.dumps(entry) + "\n" if "applied.json" in line else "")

    with ExitStack() as stack:
        found = fact(pyinfra(tmp_path, hosts(tmp_path, stack, one=has), "fact", "sparkfleet.facts.Applied"), "one")
    assert found["measures"]["swap"]["result"] == "clean"
    assert "\x1b" not in found["measures"]["swap"]["by"]


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_history_is_a_failed_fact(text: str) -> None:
    with pytest.raises(FactProcessError, match=r"applied\.json is "):
        Applied().process([text])
