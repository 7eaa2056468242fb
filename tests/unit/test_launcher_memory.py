"""Who holds memory, what the preflight says, and what was left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sparkhost.base.units import GIB
from sparkhost.launcher import leftovers, preflight, preflight_cli
from sparkhost.launcher.holders import Holder, holders, meminfo, table


def cgroup(root: Path, name: str, anon: int, pids: tuple[int, ...] = ()) -> None:
    (root / "cg" / name).mkdir(parents=True, exist_ok=True)
    (root / "cg" / name / "memory.stat").write_text(f"anon {anon}\nfile 999999999999\nshmem {anon}\n")
    for pid in pids:
        (root / "proc" / str(pid)).mkdir(parents=True)
        (root / "proc" / str(pid) / "cgroup").write_text(f"0::/{name}\n")


def test_holders_are_told_with_cpu_and_gpu_and_without_cache(tmp_path: Path) -> None:
    uid = os.getuid()
    cgroup(tmp_path, f"training.slice/spark-job-{uid}-0123abcd.service", 3 * GIB, (11, 12))
    cgroup(tmp_path, "training.slice/docker-0123456789abcdef.scope", GIB, (13,))
    cgroup(tmp_path, "user.slice/user-4242424.slice", GIB)
    cgroup(tmp_path, "system.slice/ssh.service", 2**20)
    (tmp_path / "proc" / "14").mkdir()
    (tmp_path / "proc" / "14" / "cgroup").write_text("0::/elsewhere\n")
    (tmp_path / "cg" / f"training.slice/spark-job-{uid}-0123abcd.service" / "memory.max").write_text(f"{60 * GIB}\n")
    found = holders(tmp_path / "cg", {11: GIB, 12: GIB, 13: 0, 14: 5, 99: 7}, tmp_path / "proc")
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert found == [
        Holder(user, "job 0123abcd", 6 * GIB, 2 * GIB, 60 * GIB),
        Holder("-", "container 0123456789ab", 2 * GIB, 0),
        Holder("4242424", "sessions", 2 * GIB, 0),
        Holder("root", "ssh.service", 2**21, 0),
        Holder("?", "processes outside all of these", 0, 12),
    ]
    sizes = ["8.0", "GiB", "6.0", "GiB", "2.0", "GiB"]
    assert table(found, GIB)[1].split() == [user, "job", "0123abcd", "60.0", "GiB", *sizes]
    assert table(found, GIB)[2].split()[:4] == ["-", "container", "0123456789ab", "-"]
    assert holders(tmp_path / "cg", None, tmp_path / "proc")[0].gpu is None


def test_preflight_names_who_holds_the_memory() -> None:
    memory = {"MemAvailable": 50 * GIB, "MemFree": 10 * GIB}
    found = [Holder("ann", "job 1", 60 * GIB, None), Holder("bob", "sessions", 1, 0)]
    finding = preflight.judge(80 * GIB, memory, lambda: found)
    assert finding.short
    assert "80.0 GiB are asked for, but 50.0 GiB are available" in finding.lines[0]
    assert any("ann" in line for line in finding.lines)
    assert not any("bob" in line for line in finding.lines)
    assert preflight.judge(20 * GIB, memory, lambda: []).cached
    assert preflight.judge(5 * GIB, memory, lambda: []) == preflight.Finding(False, False, ())


def test_preflight_by_itself_says_what_is_there_and_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight_cli.main(["--need", "1M", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["need"] == 2**20
    assert 2**20 < told["available"] <= told["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert preflight_cli.main(["--need", "1000T"]) == 1
    assert capsys.readouterr().out.startswith("1024000.0 GiB are asked for, but ")
    assert preflight_cli.main(["--need", "60GB"]) == 2
    assert capsys.readouterr().err == (
        "spark-preflight: --need: got '60GB', expected a size such as 60G or 512M (G is 2^30 bytes)\n"
    )


def test_meminfo_is_in_bytes() -> None:
    memory = meminfo()
    assert memory["MemTotal"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_only_orphaned_workers_of_ones_own_are_left_over() -> None:
    def spawn(title: str) -> int:
        """A process of that title whose parent has ended; its pid."""
        script = f"exec -a '{title}' sleep 60 >/dev/null 2>&1 & echo $!"
        return int(subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout)

    orphan, harmless = spawn("ray::train"), spawn("rayon")
    with subprocess.Popen(["bash", "-c", "exec -a VLLM::EngineCore sleep 60"]) as child:
        try:
            if Path(f"/proc/{orphan}/status").read_text().split("PPid:")[1].split()[0] != "1":
                pytest.skip("this machine's orphans go to a subreaper")
            until = time.monotonic() + 10  # the title is there when bash has become sleep
            while orphan not in (found := {process.pid for process in leftovers.processes(os.getuid())}):
                assert time.monotonic() < until
            assert not {harmless, child.pid} & found
            assert orphan not in {p.pid for p in leftovers.processes(os.getuid() + 1)}
            (process,) = (p for p in leftovers.processes(os.getuid()) if p.pid == orphan)
            leftovers.end(process, os.getuid())
            until = time.monotonic() + 10
            while orphan in {p.pid for p in leftovers.processes(os.getuid())}:
                assert time.monotonic() < until
        finally:
            child.kill()
            for pid in (orphan, harmless):
                if Path(f"/proc/{pid}").exists():
                    os.kill(pid, signal.SIGKILL)


def test_segments_that_are_used_shared_or_links_stay(tmp_path: Path) -> None:
    for name, mode in (("left", 0o600), ("open", 0o600), ("shared", 0o644)):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("/etc/passwd")
    with (tmp_path / "open").open():
        assert [path.name for path, _ in leftovers.segments(os.getuid(), tmp_path)] == ["left"]
    assert list(leftovers.segments(os.getuid() + 1, tmp_path)) == []
