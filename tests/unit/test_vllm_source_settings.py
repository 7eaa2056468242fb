"""The settings of vllm_source: what is taken, and what a mistake is told as."""

from __future__ import annotations

import pytest

from sparkfleet.settings import Size, VllmSourceSettings
from tasks import vllm_source as measure
from tests.unit.fleet_files import Load, load, refused

__all__ = ["load"]
GIB = 2**30


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "state: present",
            "state: is present without vllm_source.commit: set it to the commit to build, 40 hex digits",
        ),
        ("commit: v0.32.0", "commit: got 'v0.32.0', expected a commit of 40 lower-case hex digits"),
        ("commit: main", "commit: got 'main', expected a commit of 40 lower-case hex digits"),
        ("repository: http://example.com/x", "repository: got 'http://example.com/x', expected an address of git"),
        ("repository: https://u:p@example.com/x", "repository: got 'https://u:p@example.com/x', expected an address"),
        ("repository: --upload-pack=x", "repository: got '--upload-pack=x', expected an address of git"),
        ("repository: /srv/../etc", "repository: got '/srv/../etc', expected an address of git"),
        ("requirements: ../x", "requirements: got '../x', expected a path in the checkout"),
        ("requirements: -x", "requirements: got '-x', expected a path in the checkout"),
        ("index: file:///srv", "index: got 'file:///srv', expected the address of a package index"),
        ("memory_per_job: 1MiB", "memory_per_job: got 1MiB, expected 64MiB at least"),
        ("memory_max: 4GiB", "memory_max: is less than memory_per_job 8GiB"),
        ("max_jobs: 0", "max_jobs: got 0, expected a number from 1 to 4000000"),
        ("timeout: 1s", "timeout: is out of range, expected 1min to 24h"),
        (
            "variables: {CUDA_HOME: /x}",
            "variables.CUDA_HOME: got 'CUDA_HOME', expected a variable that the measure does",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_key(load: Load, text: str, line: str) -> None:
    (told,) = refused(load, f"hosts: {{a: {{settings: {{vllm_source: {{{text}}}}}}}}}")
    assert f"hosts.a.settings.vllm_source.{line}" in told


@pytest.mark.parametrize(
    "address",
    ["ssh://git@example.com:2222/x/y.git", "git://example.com/vllm", "/srv/git/vllm.git", "https://example.com/a/b~1"],
)
def test_addresses_of_repositories_are_taken(address: str) -> None:
    assert VllmSourceSettings(repository=address).repository == address


def test_sizes_of_settings_are_bytes_on_the_host() -> None:
    told = measure.request(VllmSourceSettings(memory_per_job=Size(GIB), reserve=Size(2 * GIB)))
    assert (told["memory_per_job"], told["reserve"]) == (GIB, 2 * GIB)
