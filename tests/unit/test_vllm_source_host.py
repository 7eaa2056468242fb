"""Parts of a build by themselves: MAX_JOBS, the account that commands run as, the record."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from sparkhost.vllm_source import jobs as vllm_source_jobs
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import shell as vllm_source_shell
from sparkhost.vllm_source.jobs import left, max_jobs
from sparkhost.vllm_source.record import Record
from sparkhost.vllm_source.unit import UNIT

GIB = 2**30


@pytest.mark.parametrize(
    ("cpus", "memory", "per_job", "bound", "count", "why"),
    [
        (20, 80 * GIB, 8 * GIB, 4, 4, "vllm_source.max_jobs 4"),
        (20, 80 * GIB, 8 * GIB, 32, 10, "80.0 GiB of memory for it"),
        (20, 15 * GIB, 8 * GIB, 32, 1, "15.0 GiB of memory for it"),
        (20, 16 * GIB, 8 * GIB, 32, 2, "16.0 GiB of memory for it"),
        (2, 80 * GIB, 8 * GIB, 4, 2, "2 processors"),
        (20, 7 * GIB, 8 * GIB, 4, 1, "7.0 GiB of memory for it"),
        (20, -3 * GIB, 8 * GIB, 4, 1, "0.0 GiB of memory for it"),
    ],
)
def test_as_many_compilers_as_fit(cpus: int, memory: int, per_job: int, bound: int, count: int, why: str) -> None:
    found = max_jobs(cpus, memory, per_job, bound)
    assert (found.count, found.why) == (count, why)


def test_every_cgroup_above_counts_with_what_it_holds_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_source_jobs, "CGROUPS", tmp_path)
    unit = tmp_path / "training.slice" / UNIT
    unit.mkdir(parents=True)
    for path, limit, held, cache in ((unit, 80 * GIB, GIB, 0), (unit.parent, 100 * GIB, 70 * GIB, 30 * GIB)):
        (path / "memory.max").write_text(f"{limit}\n")
        (path / "memory.current").write_text(f"{held}\n")
        (path / "memory.stat").write_text(f"anon 5\ninactive_file {cache - 2 if cache else 0}\nactive_file 2\nfile 7\n")
    below = unit / "x"
    below.mkdir()
    (below / "memory.max").write_text("max\n")
    assert list(left(f"/training.slice/{UNIT}/x")) == [79 * GIB + 2, 60 * GIB]
    assert list(left("/")) == []


def test_this_machine_has_a_figure() -> None:
    assert vllm_source_jobs.available() > 0
    assert vllm_source_jobs.measured(2**60, 4, 0).count == 1


def test_commands_run_as_the_account_and_with_nothing_of_root(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    log = tmp_path / "log"
    with log.open("ab") as stream:
        shell = vllm_source_shell.Shell(stream, {"PATH": "/usr/bin:/bin"}, nobody)
        shell.run("sh", "-c", "id -u; id -G; env; cat /etc/shadow || true")
    told = log.read_text().splitlines()
    assert told[1:3] == [str(nobody.pw_uid), str(nobody.pw_gid)]
    assert {line.partition("=")[0] for line in told[3:-1]} <= {"PATH", "PWD", "SHLVL", "_"}
    assert told[-1].endswith("Permission denied")


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"key": 1}', '{"key": "a", "commit": "b", "stack": "c", "steps": [7]}']
)
def test_a_damaged_record_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(vllm_source_record, "STATE", tmp_path)
    Record("k", "c", "s").save()
    assert vllm_source_record.read_record("k") == Record("k", "c", "s")
    (vllm_source_record.STATE / "k.json").write_text(damage)
    assert vllm_source_record.read_record("k") is None
