"""What vLLM needs beyond a stack: markers, extras, versions, and what is needed by what is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkhost.vllm_source.wants import lacking


def distribution(place: Path, name: str, version: str, *requires: str) -> None:
    info = place / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires), ""]))


@pytest.mark.parametrize(
    ("requires", "missing", "unfit"),
    [
        ([], [], []),
        (["Ray_Core >=1"], [], []),
        (["gone"], ["gone"], []),
        (["gone>=2,<3"], ["gone<3,>=2"], []),
        (["gone; python_version < '3'"], [], []),
        (["gone; extra == 'test'"], [], []),
        (["ray-core>=3"], [], ["vllm wants ray-core>=3, there is 2.1.dev0"]),
        (["ray-core>=2.0"], [], []),  # a build of the stack's own may be a pre-release
        (["ray-core[dag]"], ["graph"], []),
        (["ray-core[other]"], [], []),
        (["deep"], ["deeper>=1"], []),
        (["round"], [], []),
        (["not a requirement!"], [], []),
        (["gone @ https://example.com/gone.whl"], ["gone @ https://example.com/gone.whl"], []),
    ],
)
def test_what_is_missing_and_what_does_not_fit(
    tmp_path: Path, requires: list[str], missing: list[str], unfit: list[str]
) -> None:
    image, stack = tmp_path / "image", tmp_path / "stack"
    distribution(image, "vllm", "0.33.0", *requires)
    distribution(stack, "vllm", "0.32.0", "of-the-old-one")
    distribution(stack, "ray-core", "2.1.dev0", "graph; extra == 'dag'")
    distribution(stack, "deep", "1.0", "deeper>=1")
    distribution(stack, "round", "1.0", "round-too")
    distribution(stack, "round-too", "1.0", "round")
    assert lacking("vllm", [str(image), str(stack)]) == {"missing": missing, "unfit": unfit}
