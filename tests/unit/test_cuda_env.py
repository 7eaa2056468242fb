"""What cuda_env writes, read by the programs that read it on a host: dash, bash and zsh."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparkfleet.settings import CudaEnvSettings
from sparkhost.environment import DEFAULT_PATH, EnvironmentFile, EnvironmentOverrides, assignments
from sparkhost.resource import Resource, from_json
from tasks import cuda_env

SETTINGS = CudaEnvSettings(variables={"SITE": "two words; a=b", "VLLM_USE_FLASHINFER_MXFP4_MOE": "1"})
# zsh where it is installed; tests/integration/test_cuda_env.py has it in any case.
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
    monkeypatch.setattr("sparkhost.environment.ENVIRONMENT", host_file)
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
