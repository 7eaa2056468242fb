"""Recipes, presets and the open-instruct template: they parse, and the template resolves for aarch64."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from sparkhost.tools.profile import command, recipe
from tests.unit.small_wheels import UV, wheel

FILES = Path(__file__).resolve().parents[2] / "files" / "tools"
RECIPES = FILES / "recipes"
OTHERS = [("torch", "2.13.0"), ("torch", "2.15.0"), ("transformers", "5.19.0"), ("accelerate", "1"), ("peft", "0.21")]
OPEN_INSTRUCT = json.loads(Path(__file__).with_name("open_instruct_options.json").read_text())
OTHER_PROGRAMS = json.loads(Path(__file__).with_name("recipe_options.json").read_text())["programs"]
LENGTHS = {
    "trl": "--max_length",
    "llama-factory": "--cutoff_len",
    "unsloth": "--max-seq-length",
    "axolotl": "--sequence-len",
}


def options_of(program: str) -> set[str]:
    return {f"--{name}" for name in OPEN_INSTRUCT["programs"][program].split()}


def preset(name: str) -> list[str]:
    lines = (FILES / "presets" / f"qwen3-0.6b-{name}.args").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("name", recipe.names(RECIPES))
def test_a_recipe_has_a_place_for_each_of_its_values_and_no_other(name: str) -> None:
    found = recipe.read(name, RECIPES)
    vary, values = command.parse_vary(found.vary)
    command.check(found.template, [vary, *found.settings])
    filled = command.fill(found.template, {**found.settings, vary: str(values[0])})
    assert not any("{" in word for word in filled)
    assert found.about


@pytest.mark.parametrize("name", ["sft", "dpo", "lora"])
def test_a_recipe_that_trains_caps_the_length(name: str) -> None:
    found = recipe.read(name, RECIPES)
    assert found.template[found.template.index("--max_seq_length") + 1] == "{length}"
    assert found.environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("name", ["sft", "dpo", "lora", "grpo"])
def test_open_instruct_has_every_option_of_a_recipe(name: str) -> None:
    """It refuses what it does not know, before it has loaded anything. The options are those of one commit."""
    found = recipe.read(name, RECIPES)
    assert found.checked == f"{OPEN_INSTRUCT['repository']} at {OPEN_INSTRUCT['commit'][:12]} (2026-08-20)"
    program = next(word for word in found.template if word.startswith("open_instruct/"))
    words = found.template[found.template.index(program) + 1 :]
    assert {word for word in words if word.startswith("--")} <= options_of(program)


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_open_instruct_has_every_option_of_a_preset(name: str) -> None:
    program = {"sft": "open_instruct/finetune.py", "dpo": "open_instruct/dpo_tune_cache.py"}[name]
    assert {line.split()[0] for line in preset(name)} <= options_of(program)


def test_open_instruct_has_every_option_of_the_page() -> None:
    """A command of the page goes over lines that end with a backslash; "..." is the reader's."""
    text = (FILES / "open-instruct" / "README.md").read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("    spark-run")]
    assert len(commands) == 2
    for line in commands:
        program = next(word for word in line.split() if word.startswith("open_instruct/"))
        used = {word for word in line.partition(program)[2].split() if word.startswith("--")}
        assert used <= options_of(program)


@pytest.mark.parametrize("name", sorted(OTHER_PROGRAMS))
def test_another_program_has_every_option_of_its_recipe(name: str) -> None:
    """The options are those of one release, which the recipe asks for by name."""
    found, program = recipe.read(name, RECIPES), OTHER_PROGRAMS[name]
    package, version = program["release"].split()
    assert f"{package}=={version}" in found.template
    assert found.checked.startswith(program["release"])
    start = max(at for at, word in enumerate(found.template) if word == "--with") + 2
    words = found.template[start:]
    assert words
    assert {word for word in words if word.startswith("--")} <= set(program["options"].split())
    assigned = {word.partition("=")[0] for word in words if "=" in word}
    assert assigned <= set(program.get("keys", "").split())


@pytest.mark.parametrize("name", sorted(OTHER_PROGRAMS))
def test_a_recipe_of_another_program_caps_the_length(name: str) -> None:
    found = recipe.read(name, RECIPES)
    if name in LENGTHS:
        assert found.template[found.template.index(LENGTHS[name]) + 1] == "{length}"
    else:
        assert "tokenizer.max_seq_len={length}" in found.template
    assert found.environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


def test_axolotl_has_every_key_of_its_file() -> None:
    written = yaml.safe_load((RECIPES / "axolotl.yml").read_text())
    (dataset,) = written.pop("datasets")
    assert set(written) <= set(OTHER_PROGRAMS["axolotl"]["keys"].split())
    assert set(dataset) <= set(OTHER_PROGRAMS["axolotl"]["dataset keys"].split())


def test_no_recipe_asks_for_flash_attention() -> None:
    """Its wheels are built for CUDA 12 (docs/compatibility.md)."""
    for path in RECIPES.iterdir():
        assert "flash_attention_2" not in path.read_text()
        assert "flash_attention: true" not in path.read_text()


def test_grpo_runs_beside_vllm_on_aarch64() -> None:
    found = recipe.read("grpo", RECIPES)
    assert found.environment == {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}
    assert found.settings["vllm"] == "0.3"


@pytest.mark.parametrize(
    ("name", "batch", "steps", "checkpointing"),
    [("sft", 8, 4, "--gradient_checkpointing"), ("dpo", 4, 8, "--activation_memory_budget 0.5")],
)
def test_the_presets_are_the_published_defaults(name: str, batch: int, steps: int, checkpointing: str) -> None:
    """In the words of the open-instruct that they were checked against."""
    assert preset(name) == [
        f"--per_device_train_batch_size {batch}",
        f"--gradient_accumulation_steps {steps}",
        "--max_seq_length 1024",
        checkpointing,
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
