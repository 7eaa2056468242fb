"""What cuda_env writes, read by the programs that read it on a host: dash, bash and zsh."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparkfleet.settings import CudaEnvSettings
from sparkhost.base.resource import Context, Failed, Resource, from_json
from sparkhost.cuda_env import environment as environment_module
from sparkhost.cuda_env.environment import (
    DEFAULT_PATH,
    EnvironmentFile,
    EnvironmentOverrides,
    assignments,
    environment_lines,
    other_values,
)
from sparkhost.cuda_env.ldconfig import cached_directories
from tasks import cuda_env

SETTINGS = CudaEnvSettings(variables={"SITE": "two words; a=b", "VLLM_USE_FLASHINFER_MXFP4_MOE": "1"})
# zsh where it is installed; tests/acceptance/test_cuda_env.py has it in any case.
SHELLS = [
    [path, *options]
    for shell, *options in (["dash", "-c"], ["bash", "--norc", "-c"], ["bash", "--posix", "-c"], ["zsh", "-f", "-c"])
    if (path := shutil.which(shell))
]
CUDA = {
    "CUDA_HOME": "/usr/local/cuda",
    "TORCH_CUDA_ARCH_LIST": "12.1a",
    "TRITON_PTXAS_PATH": "/usr/local/cuda/bin/ptxas",
    "TRITON_PTXAS_BLACKWELL_PATH": "/usr/local/cuda/bin/ptxas",
    "SITE": "two words; a=b",
    "VLLM_USE_FLASHINFER_MXFP4_MOE": "1",
}
BIN, LIB = "/usr/local/cuda/bin", "/usr/local/cuda/lib64"


def script(settings: CudaEnvSettings, path: Path) -> Path:
    path.write_text(cuda_env.profile(cuda_env.values(settings), cuda_env.front(settings)))
    return path


def environment(shell: Sequence[str], path: Path, before: dict[str, str], times: int = 1) -> dict[str, str]:
    """The environment of a program that a shell starts after it has read the script, under `set -eu`."""
    command = f"set -eu; {f'. {path}; ' * times}set > /dev/null; {shutil.which('env')} -0"
    result = subprocess.run([*shell, command], env=before, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    found = dict(item.split("=", 1) for item in result.stdout.split("\0") if item)
    assert not [name for name in found if name.startswith("_sparkfleet")]
    return found


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return script(SETTINGS, tmp_path / "profile.sh")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
class TestShells:
    def test_every_variable_is_exported(self, shell: list[str], profile: Path) -> None:
        found = environment(shell, profile, {"PATH": "/usr/bin:/bin"})
        assert {name: found[name] for name in CUDA} == CUDA
        assert found["PATH"] == f"{BIN}:/usr/bin:/bin"
        assert found["LD_LIBRARY_PATH"] == LIB

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (None, LIB),
            ("", LIB),
            (":", LIB),
            ("/mine", f"{LIB}:/mine"),
            ("/mine:", f"{LIB}:/mine"),
            (":/mine::/more one:", f"{LIB}:/mine:/more one"),
            (f"/mine:{LIB}:/more:{LIB}", f"/mine:{LIB}:/more"),
            (f"{LIB}:{LIB}", LIB),
            (f"{LIB}x:/*", f"{LIB}:{LIB}x:/*"),
        ],
    )
    def test_an_existing_search_path_is_kept_without_empty_elements(
        self, shell: list[str], profile: Path, before: str | None, after: str
    ) -> None:
        given = {"PATH": "/usr/bin", **({} if before is None else {"LD_LIBRARY_PATH": before})}
        assert environment(shell, profile, given)["LD_LIBRARY_PATH"] == after

    def test_reading_it_again_changes_nothing(self, shell: list[str], profile: Path) -> None:
        once = environment(shell, profile, {"PATH": "/usr/bin"})
        assert environment(shell, profile, {"PATH": "/usr/bin"}, times=3) == once
        assert environment(shell, profile, once) == once

    def test_a_value_of_the_users_own_wins(self, shell: list[str], profile: Path) -> None:
        own = {"PATH": "/usr/bin", "TORCH_CUDA_ARCH_LIST": "9.0", "CUDA_HOME": ""}
        found = environment(shell, profile, own)
        assert (found["TORCH_CUDA_ARCH_LIST"], found["CUDA_HOME"]) == ("9.0", "")

    @pytest.mark.parametrize("mode", ["ldconfig", "none"])
    def test_without_the_export_ld_library_path_is_left_alone(
        self, shell: list[str], tmp_path: Path, mode: str
    ) -> None:
        settings = CudaEnvSettings.model_validate({"ld_library_path": mode})
        path = script(settings, tmp_path / "profile.sh")
        assert "LD_LIBRARY_PATH" not in environment(shell, path, {"PATH": "/usr/bin"})
        theirs = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/mine:"}
        assert environment(shell, path, theirs)["LD_LIBRARY_PATH"] == "/mine:"


def of_kind(resources: Sequence[Resource], kind: type[Resource]) -> list[Resource]:
    return [resource for resource in resources if isinstance(resource, kind)]


@pytest.mark.parametrize("other", ["", "set in /etc/environment"])
def test_the_services_file_has_the_values_and_a_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    host_file = tmp_path / "environment"
    host_file.write_text("PATH=/bin:/snap/bin::\nLD_LIBRARY_PATH=/theirs\n" if other else "")
    monkeypatch.setattr("sparkhost.cuda_env.environment.ENVIRONMENT", host_file)
    (resource,) = of_kind(cuda_env.apply(SETTINGS), EnvironmentFile)
    assert isinstance(resource, EnvironmentFile)
    found = assignments(resource._file().content)
    assert {name: found[name] for name in CUDA} == CUDA
    assert found["PATH"] == (f"{BIN}:/bin:/snap/bin" if other else f"{BIN}:{DEFAULT_PATH}")
    assert found["LD_LIBRARY_PATH"] == (f"{LIB}:/theirs" if other else LIB)


def test_resources_survive_the_way_to_the_host() -> None:
    for resource in (*cuda_env.apply(SETTINGS), *cuda_env.remove(SETTINGS)):
        assert from_json(resource.to_json()) == resource


def test_the_settings_are_the_only_source_of_values() -> None:
    settings = CudaEnvSettings(home="/opt/cuda-13.1", arch_list="12.0;12.1a", ptxas="/opt/ptxas")
    values = cuda_env.values(settings)
    assert values == {
        "CUDA_HOME": "/opt/cuda-13.1",
        "TORCH_CUDA_ARCH_LIST": "12.0;12.1a",
        "TRITON_PTXAS_PATH": "/opt/ptxas",
        "TRITON_PTXAS_BLACKWELL_PATH": "/opt/ptxas",
    }
    (overrides,) = of_kind(cuda_env.apply(settings), EnvironmentOverrides)
    assert isinstance(overrides, EnvironmentOverrides)
    assert overrides.values == values


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's /etc without a toolkit beside it, and no user managers."""
    monkeypatch.setattr(environment_module, "ENVIRONMENT", tmp_path / "etc/environment")
    monkeypatch.setattr(environment_module, "BOOTED", tmp_path / "not-booted")
    monkeypatch.setattr(cuda_env, "PROFILE", str(tmp_path / "etc/profile.d/x.sh"))
    monkeypatch.setattr(cuda_env, "SERVICES", str(tmp_path / "etc/sparkfleet/cuda.env"))
    monkeypatch.setattr(cuda_env, "LIBRARIES", str(tmp_path / "etc/ld.so.conf.d/x.conf"))
    (tmp_path / "etc/profile.d").mkdir(parents=True)
    return tmp_path / "etc"


def planned(resources: Sequence[Resource]) -> list[str]:
    return [change.what for resource in resources for change in resource.plan(Context())]


@pytest.mark.parametrize("mode", ["export", "ldconfig", "none"])
def test_without_a_toolkit_nothing_is_written(etc: Path, tmp_path: Path, mode: str) -> None:
    settings = CudaEnvSettings.model_validate({"home": f"{tmp_path}/cuda", "ld_library_path": mode})
    assert planned(cuda_env.apply(settings)) == []
    assert planned(cuda_env.remove(settings)) == []
    (tmp_path / "cuda").mkdir()
    assert len(planned(cuda_env.apply(settings))) == 3  # the toolkit came; it has no lib64 yet


def test_values_of_other_files_are_reported_where_they_differ(tmp_path: Path) -> None:
    text = """\
    # CUDA_HOME=/commented/out
    export CUDA_HOME="/usr/local/cuda"
    PATH=/anything:$PATH
    TORCH_CUDA_ARCH_LIST DEFAULT=8.9
    export SITE='other'; export SITE=other
    """
    assert other_values(text, CUDA) == ["TORCH_CUDA_ARCH_LIST", "SITE"]
    assert other_values("export CUDA_HOMES=1\nCUDA_HOME =2\n[ $CUDA_HOME=3 ]", CUDA) == []


def test_a_line_that_pam_env_cannot_read_is_a_failure_with_its_length() -> None:
    with pytest.raises(Failed, match=r"PATH would be 10\d\d characters long"):
        environment_lines(f"PATH=/{'y' * 1000}", {}, {"PATH": BIN})


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  export A='one two'  # comment", "one two"),
        ('A="1', "1"),
        ("#A=2", None),
        ("A =2", None),
        ("A=1\nA=2", "2"),
        ("A=", ""),
    ],
)
def test_assignments_are_read_as_pam_env_reads_them(line: str, value: str | None) -> None:
    assert assignments(line).get("A") == value


LISTING = """\
3 libs found in cache `/etc/ld.so.cache'
\tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1
\tlibcudart.so.13 (libc6,AArch64) => /usr/local/cuda/targets/sbsa-linux/lib/libcudart.so.13
\tlibm.so.6 (libc6,x86-64, OS ABI: Linux 3.2.0) => /lib/x86_64-linux-gnu/libm.so.6
Cache generated by: ldconfig (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36
"""


def test_the_directories_of_the_cache_are_read() -> None:
    assert cached_directories(LISTING) == {"/lib/x86_64-linux-gnu", "/usr/local/cuda/targets/sbsa-linux/lib"}


def test_user_managers_are_asked_of_pid_1_and_signalled_by_it(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose user has logged out meanwhile stops none of the others. systemctl and busctl are doubles."""
    lines = "  user@0.service loaded active running x\n  user@1001.service loaded active running y\n"
    (tmp_path / "bin").mkdir()
    for name, body in (
        ("systemctl", f"printf '{lines}'"),
        ("busctl", f'echo "$*" >>{tmp_path}/calls; case "$*" in *user@0*) exit 1;; esac'),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(environment_module, "BOOTED", tmp_path)
    monkeypatch.setattr(environment_module, "OUTDATED", tmp_path / "outdated")
    (tmp_path / "outdated").touch()
    managers = environment_module.UserManagers()
    assert len(managers.plan(Context())) == 1
    managers.apply()
    assert managers.plan(Context()) == []
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("KillUnit ")[1] for call in calls] == [
        "ssi user@0.service main 1",
        "ssi user@1001.service main 1",
    ]
