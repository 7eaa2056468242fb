"""The field report against a double of CUDA's driver at its ABI, and on this machine as it is."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from sparkhost.base.units import MIB
from sparkhost.tools.fieldreport import host, trials
from sparkhost.tools.fieldreport.cli import main
from sparkhost.tools.fieldreport.report import Observation, markdown
from sparkhost.tools.fieldreport.trials import Libraries
from sparkhost.tools.profile.sample import Memory

ROOT = Path(__file__).resolve().parents[2]
SIZE = 128 * MIB


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The double, built."""
    compiler = shutil.which("cc")
    assert compiler, "needs a C compiler: make test installs one"
    built = tmp_path_factory.mktemp("cuda") / "libcuda-double.so"
    source = ROOT / "tests" / "doubles" / "cuda.c"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, source], check=True)
    return str(built)


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test machines have less than 20 GiB to spare."""
    monkeypatch.setattr(trials, "SPARE", 0)


def tried(cuda: str, size: int = SIZE) -> dict[int, Observation]:
    memory = Memory()
    found = {item.fact: item for item in trials.look(size, Libraries(cuda, "/nonexistent.so"), memory)}
    memory.close()
    return found


def test_every_trial_is_made_and_tells_a_figure(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "PATIENCE", 20.0)
    found = tried(cuda)
    assert set(found) == {41, 80, 81, 82, 83, 84, 85, 86}
    # With the double the memory is the process's own, so RSS sees it: the opposite of what is known of CUDA's.
    assert found[81].verdict == "otherwise"
    assert "GiB/s" in found[82].saw
    # Whether memory comes back depends on what else goes on here; the process's end does not.
    assert re.match(r"ended after \d+ ms, 128 MiB (not )?back", found[86].saw)
    assert found[83].verdict == "not tried"


def test_a_driver_that_refuses_is_told(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DOUBLE", "fail")
    (found,) = tried(cuda).values()
    assert (found.verdict, found.saw) == ("not tried", "cuMemAlloc_v2 returned 2")


def test_a_driver_that_hangs_does_not_hold_up_the_report(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DOUBLE", "hang")
    monkeypatch.setattr(trials, "PATIENCE", 1.0)
    (found,) = tried(cuda).values()
    assert found.saw == "the driver did not answer in time"


def test_a_host_without_a_driver_is_told() -> None:
    (found,) = tried("/nonexistent.so").values()
    assert "cannot be loaded" in found.saw


def test_nothing_is_tried_where_it_would_not_leave_enough(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SPARE", 2**60)
    (found,) = tried(cuda).values()
    assert "are needed" in found.saw


def test_a_report_names_neither_host_nor_user_nor_machine(cuda: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "64M", "--cuda-library", cuda, "--nvml-library", "/nonexistent.so"]) == 0
    report = capsys.readouterr().out
    assert report.startswith("## sparkfleet field report")
    secrets = {socket.gethostname(), os.uname().nodename, str(Path.home())}
    name = pwd.getpwuid(os.getuid()).pw_name
    secrets |= {f"/{name}", f" {name} "}
    for path in ("/etc/machine-id", "/sys/class/dmi/id/product_serial", "/sys/class/dmi/id/product_uuid"):
        if os.access(path, os.R_OK):
            secrets.add(Path(path).read_text().strip())
    for key in Path("/etc/ssh").glob("ssh_host_*_key.pub"):
        secrets.add(key.read_text().split()[1])
    # As words of their own: a host may be called what a part of an ordinary word is.
    assert [
        secret for secret in secrets if secret.strip() and re.search(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", report)
    ] == []


def test_a_spark_is_recognised_by_its_files(tmp_path: Path) -> None:
    files = {
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
        "proc/meminfo": f"MemTotal: {int(119.7 * 2**20)} kB\nMemFree: 1 kB\nMemAvailable: 1 kB\n",
        "proc/swaps": "Filename Type Size Used Priority\n/swap.img file 16777212 0 -2\n/dev/dm-name p 1048576 0 -3\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release\n",
        "sys/class/dmi/id/product_name": "NVIDIA_DGX_Spark\n",
        "sys/class/watchdog/watchdog0/identity": "SBSA Generic Watchdog\n",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
        "etc/fstab": "# /x none swap\n/swap.img none swap sw 0 0\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    found = list(host.look(tmp_path))
    assert [item.what for item in found if item.verdict == "otherwise"] == []
    assert next(item for item in found if item.fact == 6).saw == "/swap.img (file, 16.0 GiB), another (p, 1.0 GiB)"
    (tmp_path / "sys/class/dmi/id/product_name").write_text("ASUS something\n")
    assert [item.fact for item in host.look(tmp_path) if item.verdict == "otherwise"] == [89]


@pytest.mark.parametrize("size", ["1", "63M", "9G", "x"])
def test_a_size_out_of_range_is_one_line(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", size]) == 2
    assert capsys.readouterr().err.startswith("spark-field-report: --size: got ")


def test_the_report_without_gpu_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-gpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"fact", "what", "known", "saw", "verdict"} == set(document["observations"][0])


def test_a_cell_cannot_break_the_table() -> None:
    text = markdown([Observation(1, "a|b", "x\ny", "\x1b[2J", "seen")])
    assert text.splitlines()[-1] == "| 1 | a\\|b | x?y | ?[2J | seen |"


def test_every_fact_that_is_tried_is_in_the_list_of_facts() -> None:
    page = (ROOT / "docs" / "facts.md").read_text()
    for number in (6, 18, 41, *range(80, 96)):
        assert f"\n{number}. " in page
