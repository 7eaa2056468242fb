"""Recipes, presets and the open-instruct template: they parse, and the template resolves for aarch64."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sparkhost.profile import command, recipe
from tests.unit.small_wheels import UV, wheel

FILES = Path(__file__).resolve().parents[2] / "files" / "tools"
RECIPES = FILES / "recipes"
OTHERS = [("torch", "2.13.0"), ("torch", "2.15.0"), ("transformers", "5.19.0"), ("accelerate", "1"), ("peft", "0.21")]


@pytest.mark.parametrize("name", recipe.names(RECIPES))
def test_a_recipe_has_a_place_for_each_of_its_values_and_no_other(name: str) -> None:
    found = recipe.read(name, RECIPES)
    vary, values = command.parse_vary(found.vary)
    command.check(found.template, [vary, *found.settings])
    filled = command.fill(found.template, {**found.settings, vary: str(values[0])})
    assert not any("{" in word for word in filled)
    assert found.about


@pytest.mark.parametrize("name", ["sft", "dpo", "lora"])
def test_a_recipe_that_trains_caps_the_length_and_uses_sdpa(name: str) -> None:
    words = recipe.read(name, RECIPES).template
    assert words[words.index("--max_seq_length") + 1] == "{length}"
    assert words[words.index("--use_flash_attn") + 1] == "false"


@pytest.mark.parametrize(("name", "batch", "steps"), [("sft", 8, 4), ("dpo", 4, 8)])
def test_the_presets_are_the_published_defaults(name: str, batch: int, steps: int) -> None:
    lines = (FILES / "presets" / f"qwen3-0.6b-{name}.args").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        f"--per_device_train_batch_size {batch}",
        f"--gradient_accumulation_steps {steps}",
        "--max_seq_length 1024",
        "--gradient_checkpointing",
    ]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, locked by uv against small stand-ins of the same names, versions and requirements."""
    project = tmp_path_factory.mktemp("open-instruct")
    index = tmp_path_factory.mktemp("index")
    (project / "pyproject.toml").write_bytes((FILES / "open-instruct" / "pyproject.toml").read_bytes())
    wheel(index, "vllm", "0.32.0", {}, ["torch==2.13.0"])
    wheel(index, "flash-attn", "2.8.3", {}, ["torch"])
    for name, version in OTHERS:
        wheel(index, name, version, {})
    command = [str(UV), "lock", "-q", "--offline", "--no-index", "--find-links", str(index), "--python", sys.executable]
    subprocess.run(command, cwd=project, check=True, timeout=120)
    return project


def wanted(project: Path, platform: str) -> set[str]:
    """What uv would install on a platform."""
    command = [str(UV), "tree", "-q", "--offline", "--frozen", "--python-platform", platform, "--depth", "1"]
    text = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True, timeout=120).stdout
    return set(re.findall(r"([a-z][a-z0-9-]*) v\d", text))


def test_the_template_resolves_and_leaves_flash_attn_out_on_aarch64(locked: Path) -> None:
    versions = {item["name"]: item["version"] for item in tomllib.loads((locked / "uv.lock").read_text())["package"]}
    assert (versions["torch"], versions["vllm"]) == ("2.13.0", "0.32.0")
    spark, server = wanted(locked, "aarch64-unknown-linux-gnu"), wanted(locked, "x86_64-unknown-linux-gnu")
    assert server - spark == {"flash-attn"}
    assert {"torch", "vllm", "transformers"} <= spark
