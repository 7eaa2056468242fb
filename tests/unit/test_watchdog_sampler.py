"""The GPU sampler against a double of NVML at its ABI, and the watchdog's reading of what it wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparkhost.watchdog.gpu import GpuCache
from tests.doubles import nvml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def command(library: Path, folder: Path) -> list[str]:
    arguments = ["--library", str(library), "--file", str(folder / "sample.json"), "--once"]
    return [sys.executable, "-m", "sparkhost.sampler", *arguments]


def sampled(library: Path, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script").write_text(script)
    environment = {**os.environ, "NVML_DOUBLE": str(folder / "script")}
    return subprocess.run(
        command(library, folder),
        env=environment,
        cwd=ROOT / "files/host",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def view(folder: Path, use: str = "auto", stale_after: float = 60) -> GpuCache:
    return GpuCache(folder / "sample.json", use, stale_after)  # type: ignore[arg-type]


def test_bytes_by_process_over_both_lists_and_all_gpus(library: Path, tmp_path: Path) -> None:
    first = "device GB10 unified\ncompute 11 5000000000\ngraphics 11 5000000000\ngraphics 12 7\n"
    script = f"{first}device GB10 unified\ncompute 11 2\n"
    assert sampled(library, tmp_path, script).returncode == 0
    seen = view(tmp_path).view()
    assert (seen.bytes, seen.note) == ({11: 5000000002, 12: 7}, "")


def test_temperature_is_told_where_the_driver_says_it(library: Path, tmp_path: Path) -> None:
    assert sampled(library, tmp_path, "device GB10 unified\nheat 61\ndevice GB10 unified\n").returncode == 0
    devices = json.loads((tmp_path / "sample.json").read_text())["devices"]
    assert [device["temperature"] for device in devices] == [61, None]


def test_a_gpu_with_memory_of_its_own_does_not_count_unless_told_to(library: Path, tmp_path: Path) -> None:
    assert sampled(library, tmp_path, "device H100 own\ncompute 11 99\n").returncode == 0
    assert view(tmp_path).view().bytes == {}
    assert "memory of their own" in view(tmp_path).view().note
    assert view(tmp_path, "always").view().bytes == {11: 99}
    assert view(tmp_path, "never").view().bytes == {}


def test_a_list_longer_than_the_first_room_is_read_whole(library: Path, tmp_path: Path) -> None:
    many = "".join(f"compute {pid} {pid}\n" for pid in range(1, 501))
    assert sampled(library, tmp_path, f"device GB10 unified\n{many}").returncode == 0
    assert view(tmp_path).view().bytes == {pid: pid for pid in range(1, 501)}


def test_what_the_driver_cannot_say_is_left_out(library: Path, tmp_path: Path) -> None:
    assert sampled(library, tmp_path, f"device GB10 unified\ncompute 11 {2**64 - 1}\ncompute 12 4\n").returncode == 0
    assert view(tmp_path).view().bytes == {12: 4}


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlInit_v2", 9),  # the driver is not loaded
        ("nvmlInit_v2", 18),  # the library is newer than the loaded driver
        ("nvmlDeviceGetCount_v2", 1),
        ("nvmlDeviceGetHandleByIndex_v2", 15),  # the GPU is lost
        ("nvmlDeviceGetComputeRunningProcesses_v3", 999),
    ],
)
def test_an_error_is_said_in_one_line_and_in_the_file(library: Path, tmp_path: Path, function: str, code: int) -> None:
    result = sampled(library, tmp_path, f"device GB10 unified\ncompute 11 5\nfail {function} {code}\n")
    assert (result.returncode, result.stderr) == (1, f"sparkfleet-gpu-sampler: {function} returned {code}\n")
    seen = view(tmp_path).view()
    assert seen.bytes == {}
    assert f"{function} returned {code}" in seen.note


def test_no_library_is_a_normal_condition(tmp_path: Path) -> None:
    result = sampled(tmp_path / "none.so", tmp_path, "")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "cannot be loaded" in view(tmp_path).view().note


def test_a_library_that_comes_later_is_found_by_the_same_process(library: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.so"
    (tmp_path / "script").write_text("device GB10 unified\ncompute 11 5\n")
    code = "import sys; from sparkhost.sampler import main; main.PATIENCE = 0.1; sys.exit(main.main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, *command(late, tmp_path)[3:-1], "--every", "0.1"]
    environment = {**os.environ, "NVML_DOUBLE": str(tmp_path / "script")}
    with subprocess.Popen(
        words, env=environment, cwd=ROOT / "files/host", stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            assert "cannot be loaded" in process.stderr.readline()
            shutil.copy(library, tmp_path / "copy.so")
            (tmp_path / "copy.so").rename(late)
            until = time.monotonic() + 30
            while view(tmp_path).view().bytes != {11: 5} and time.monotonic() < until:
                assert process.poll() is None, "it still runs"
                time.sleep(0.05)
            assert view(tmp_path).view().bytes == {11: 5}
        finally:
            process.kill()


def test_while_it_hangs_the_last_sample_grows_old(library: Path, tmp_path: Path) -> None:
    assert sampled(library, tmp_path, "device GB10 unified\ncompute 11 5\n").returncode == 0
    written = (tmp_path / "sample.json").stat().st_mtime_ns
    (tmp_path / "script").write_text("device GB10 unified\nhang nvmlDeviceGetComputeRunningProcesses_v3\n")
    environment = {**os.environ, "NVML_DOUBLE": str(tmp_path / "script")}
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command(library, tmp_path), env=environment, cwd=ROOT / "files/host", timeout=2, check=False)
    assert (tmp_path / "sample.json").stat().st_mtime_ns == written
    seen = view(tmp_path, stale_after=1).view()
    assert seen.bytes == {}
    assert seen.note.startswith("the GPU sampler's figures are ")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"boottime": "x"}', '{"boottime": 1e99, "error": null, "devices": []}', "x" * (1 << 18)],
)
def test_a_broken_file_is_no_figures(tmp_path: Path, content: str) -> None:
    (tmp_path / "sample.json").write_text(content)
    seen = view(tmp_path).view()
    assert seen.bytes == {}
    assert seen.note


@pytest.mark.parametrize("devices", [[1], [{"unified": True}], [{"unified": True, "processes": {"x": 1}}], 7])
def test_a_broken_sample_is_no_figures(tmp_path: Path, devices: object) -> None:
    sample = {"boottime": time.clock_gettime(time.CLOCK_BOOTTIME), "error": None, "devices": devices}
    (tmp_path / "sample.json").write_text(json.dumps(sample))
    seen = view(tmp_path).view()
    assert seen.bytes == {}
    assert "cannot be read" in seen.note


def test_something_in_its_place_that_would_block_does_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sample.json")
    assert view(tmp_path).view().note
    (tmp_path / "sample.json").unlink()
    (tmp_path / "sample.json").symlink_to("/dev/zero")
    assert view(tmp_path).view().note
