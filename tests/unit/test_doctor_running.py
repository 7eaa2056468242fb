"""Troubles of processes, hosts and pasted texts. Processes are real; a host's GPU files stand in a directory."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.base.units import Mistake
from sparkhost.tools.doctor import host, nvidia, process, text
from sparkhost.tools.doctor.cli import main
from sparkhost.tools.doctor.finding import Finding, lines
from sparkhost.tools.doctor.rules import RULES
from tests.unit.small_wheels import install, library, new_venv

SLEEP = "import sys; print('ready', flush=True); sys.stdin.read()"
SPIN = "print('ready', flush=True)\nwhile True: pass"


@contextlib.contextmanager
def running(code: str, *words: str, python: str = sys.executable, **environment: str) -> Iterator[int]:
    """A Python process that has begun, with further words on its command line."""
    command = [python, "-c", code, *words]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started.pid
    finally:
        started.kill()
        started.communicate(timeout=30)


def found_in(pid: int) -> dict[str, Finding]:
    return {finding.id: finding for finding in process.look(process.read(pid))}


def test_a_process_outside_of_the_slice_is_told_to_use_the_launcher() -> None:
    with running(SLEEP) as pid:
        assert "spark-run" in found_in(pid)["not-in-slice"].fix


@pytest.mark.parametrize("cgroup", ["/training.slice/spark-job-1000-0123abcd.service", "/docker/" + "0" * 64])
def test_jobs_and_containers_are_where_they_should_be(cgroup: str) -> None:
    with running(SLEEP) as pid:
        seen = process.read(pid)._replace(cgroup=cgroup)
    assert list(process.place(seen)) == []


def test_a_library_of_cuda_12_in_a_process_is_found(tmp_path: Path) -> None:
    library(tmp_path, "libcudart.so.12")
    code = f"import ctypes; ctypes.CDLL('{tmp_path}/libcudart.so.12'); {SLEEP}"
    with running(code) as pid:
        assert "libcudart.so.12" in found_in(pid)["cudart-12-loaded"].saw


@pytest.mark.parametrize(
    ("value", "bad"), [("/usr/lib:", True), (":/usr/lib", True), ("/a::/b", True), ("/a:/b", False), ("", False)]
)
def test_an_empty_element_in_the_library_path_is_found(value: str, bad: bool) -> None:
    with running(SLEEP, LD_LIBRARY_PATH=value) as pid:
        assert ("library-path" in found_in(pid)) is bad


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--attn_implementation", "flash_attention_2"], {"flash-attention-2"}),
        (["--use_flash_attn", "true"], {"flash-attention-2"}),
        (["--use_flash_attn", "false"], set()),
        (["--attn_implementation=sdpa"], set()),
        (["--per_device_train_batch_size", "8"], {"no-length-cap"}),
        (["--per_device_train_batch_size=8", "--max_seq_length=1024"], set()),
        (["--per-device-train-batch-size", "8", "--max-length", "1024"], set()),
    ],
)
def test_the_command_line_is_read(words: list[str], expected: set[str]) -> None:
    with running(SLEEP, *words) as pid:
        assert set(found_in(pid)) - {"not-in-slice", "unkillable"} == expected


def test_a_vllm_that_does_nothing_is_told_about_cuda_graphs() -> None:
    with running(SLEEP, "vllm", "serve") as pid:
        assert "--enforce-eager" in found_in(pid)["vllm-idle"].fix
    with running(SLEEP, "vllm", "serve", "--enforce-eager") as pid:
        assert "vllm-idle" not in found_in(pid)


def test_a_vllm_that_works_is_left_in_peace() -> None:
    with running(SPIN, "vllm", "serve") as pid:
        assert "vllm-idle" not in found_in(pid)


def test_the_venv_of_a_process_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv = new_venv(tmp_path / "env")
    install(venv, tmp_path, "flash-attn", "2.8.3", {"flash_attn/__init__.py": b""})
    with running(SLEEP, python=str(venv / "bin" / "python")) as pid:
        assert main(["--json", str(pid)]) == 1
    assert "flash-attn" in {finding["id"] for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_a_process_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(timeout=30)
    with pytest.raises(Mistake, match="there is no such process"):
        process.read(ended.pid)
    assert main([str(ended.pid)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


class Root:
    """A host's files in a directory, as procfs, sysfs and NVIDIA's packages have them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.memory(available=100, free=90)
        self.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")

    def write(self, name: str, content: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def memory(self, available: int, free: int) -> None:
        """In GiB."""
        values = {"MemTotal": 120, "MemFree": free, "MemAvailable": available}
        self.write("proc/meminfo", "".join(f"{name}: {value * 2**20} kB\n" for name, value in values.items()))

    def gpu(self) -> None:
        self.write("sys/bus/pci/devices/000f:01:00.0/vendor", "0x10de\n")
        self.write("sys/bus/pci/devices/000f:01:00.0/class", "0x030200\n")

    def driver(self, kernel: str, library: str = "") -> None:
        self.write(
            "proc/driver/nvidia/version",
            f"NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  {kernel}  Release Build  (x)\n",
        )
        target = self.write(f"usr/lib/aarch64-linux-gnu/libnvidia-ml.so.{library or kernel}", "")
        target.with_name("libnvidia-ml.so.1").symlink_to(target.name)

    def toolkit(self, version: str) -> None:
        self.write("usr/local/cuda/version.json", json.dumps({"cuda": {"name": "CUDA SDK", "version": version}}))

    def look(self) -> dict[str, Finding]:
        path = "/home/ann/bin:/usr/local/cuda/bin:/usr/bin:/bin"
        return {finding.id: finding for finding in host.look(self.path, "6.14.0-1013-nvidia", path)}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_a_healthy_spark_has_no_trouble(root: Root) -> None:
    root.gpu()
    root.driver("580.95.05")
    root.toolkit("13.0.2")
    assert root.look() == {}


def test_a_cgroup_driver_that_was_chosen_on_purpose_is_no_trouble(root: Root) -> None:
    root.write("etc/docker/daemon.json", '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}')
    assert root.look() == {}


def test_swap_that_is_back_on_is_found(root: Root) -> None:
    root.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/swap.img file 16777212 0 -2\n")
    assert root.look()["swap-on"].saw == "/swap.img (16.0 GiB)"


@pytest.mark.parametrize(("available", "free", "found"), [(52, 3, True), (52, 40, False), (9, 2, False)])
def test_page_cache_that_hides_memory_from_cuda_is_found(root: Root, available: int, free: int, found: bool) -> None:
    root.memory(available, free)
    assert ("page-cache" in root.look()) is found


def test_a_driver_of_another_release_than_its_libraries_is_found(root: Root) -> None:
    root.driver("580.95.05", "580.142")
    assert "the kernel has loaded 580.95.05, the libraries are 580.142" in root.look()["driver-mismatch"].saw


def test_a_kernel_without_a_module_is_told_from_one_with_a_module(root: Root) -> None:
    root.gpu()
    assert "has none" in root.look()["driver-not-loaded"].saw
    root.write("lib/modules/6.14.0-1013-nvidia/kernel/nvidia-580-open/nvidia.ko.zst", "")
    assert "modprobe" in root.look()["driver-not-loaded"].fix


@pytest.mark.parametrize(
    ("driver", "toolkit", "expected"),
    [
        ("570.12", "13.0.0", {"driver-old"}),
        ("580.95.05", "12.8.1", {"toolkit-12"}),
        ("580.95.05", "13.2.0", {"toolkit-newer"}),
        ("595.10", "13.2.0", set()),
        ("580.95.05", "nonsense", set()),
    ],
)
def test_driver_and_toolkit_must_fit(root: Root, driver: str, toolkit: str, expected: set[str]) -> None:
    root.driver(driver)
    root.toolkit(toolkit)
    assert set(root.look()) == expected


def test_an_nvcc_of_the_distribution_that_is_first_in_the_path_is_found(root: Root) -> None:
    first = root.write("usr/bin/nvcc", "")
    assert root.look()["nvcc-first"].where == str(first)
    root.write("usr/local/cuda/bin/nvcc", "")
    assert root.look() == {}


def test_an_nvcc_of_another_cuda_is_named_with_its_version(root: Root) -> None:
    target = root.write("opt/cuda-12.4/bin/nvcc", "")
    version = root.write("opt/cuda-12.4/version.json", '{"cuda": {"version": "12.4.1"}}')
    root.write("home/ann/bin/x", "")
    (root.path / "home/ann/bin/nvcc").symlink_to(target)
    assert "is of CUDA 12.4" in root.look()["nvcc-first"].saw
    version.write_text('{"cuda": {"version": "13.0.2"}}')
    assert root.look() == {}
    version.write_text("[" * 100_000)  # nobody knows which it is
    assert root.look() == {}


def nvidia_smi_double(directory: Path, answer: str, code: int = 0) -> str:
    """A double of the driver's program at its real interface: arguments in, lines and an exit code out."""
    path = directory / "nvidia-smi"
    path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{answer}\nEOF\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("NVIDIA GB10, 507, 3003, 96", True),
        ("NVIDIA GB10, 2405, 3003, 96", False),
        ("NVIDIA GB10, 208, 3003, 0", False),
        ("NVIDIA GB10, [N/A], 3003, 96", False),
        ("Odd, name, 507, 3003, 96", True),
    ],
)
def test_clocks_that_stay_low_under_load_are_found(tmp_path: Path, answer: str, found: bool) -> None:
    assert bool(list(nvidia.look(nvidia_smi_double(tmp_path, answer)))) is found


def test_a_driver_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    (finding,) = nvidia.look(nvidia_smi_double(tmp_path, said, 18))
    assert finding.id == "driver-silent"
    assert said in finding.saw
    assert list(nvidia.look(str(tmp_path / "none"))) == []


@pytest.mark.parametrize(
    ("pasted", "expected"),
    [
        ("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory", "cudart-12"),
        ("ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'", "ptxas-sm121a"),
        ("ImportError: FlashAttention2 has been toggled on, but it cannot be used: flash_attn is not", "flash-attn"),
        ("FlashAttention2 has been toggled on, but flash_attn is not installed", "flash-attn"),
        ("Found GPU0 NVIDIA GB10 which is of cuda capability 12.1.", "sm121-warning"),
        ("AssertionError: Torch not compiled with CUDA enabled", "torch-cpu"),
        ("CUDA error: no kernel image is available for execution on the device", "no-kernel"),
        ("fatal error: Python.h: No such file or directory", "python-headers"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out-of-memory"),
        ("Killed", "killed"),
        ("Unknown assignment: OOMScoreAdjust=500", "scope-setting"),
        ("NVRM: nvAssertFailedNoLog: Assertion failed: Out of memory [NV_ERR_NO_MEMORY]", "nv-no-memory"),
    ],
)
def test_a_pasted_error_is_known(pasted: str, expected: str) -> None:
    (finding,) = text.look(f"Traceback (most recent call last):\n  {pasted}\nmore", "the text")
    assert finding.id == expected
    assert pasted in finding.saw


def test_a_real_import_of_a_library_that_wants_cuda_12_gives_the_known_error(tmp_path: Path) -> None:
    """The error is the dynamic linker's own, not a copy of it."""
    library(tmp_path, "wants.so", "libcudart.so.12")
    (tmp_path / "libcudart.so.12").unlink()
    code = f"import ctypes; ctypes.CDLL('{tmp_path}/wants.so')"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert [finding.id for finding in text.look(failed.stderr, "x")] == ["cudart-12"]


def test_a_note_alone_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text("Found GPU0 NVIDIA GB10 which is of cuda capability 12.1.\n")
    assert main([str(log)]) == 0
    assert "note: sm121-warning" in capsys.readouterr().out


def test_a_project_is_looked_at_with_its_venv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv = new_venv(tmp_path / ".venv")
    install(venv, tmp_path, "torch", "2.9.0", {"torch/version.py": b"cuda = None\n"})
    (tmp_path / "train.py").write_text('attn_implementation="flash_attention_2"\n')
    assert main(["--json", str(tmp_path)]) == 1
    found = {finding["id"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found == {"torch-cpu", "flash-attention-2"}


@pytest.mark.parametrize("words", [["/nonexistent"], ["no\x1b[31mthing"]])
def test_a_target_that_is_nothing_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error


def test_a_venv_without_packages_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(new_venv(tmp_path / "env") / "lib")
    assert main([str(tmp_path / "env")]) == 2
    assert "site-packages: is it a virtual environment?" in capsys.readouterr().err


def test_escape_sequences_of_others_do_not_reach_the_terminal() -> None:
    shown = "\n".join(lines(Finding("x", "note", "\x1b[2J", "a\rb", "w", "f")))
    assert all(char.isprintable() or char == "\n" for char in shown)


def test_this_machine_is_looked_at_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["version"] == 1


def test_every_finding_is_explained_in_the_docs() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "doctor.md").read_text()
    ids = {rule.id for rule in RULES}
    for path in (root / "files/host/sparkhost/doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                ids.update({str(node.args[0].value)} if isinstance(node.args[0], ast.Constant) else ())
    assert len(ids) > 20
    assert [id_ for id_ in sorted(ids) if f"`{id_}`" not in page] == []
