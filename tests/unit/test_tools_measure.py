"""What the measure tools puts on a host runs there on its own, and can be taken away."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet.settings import ToolsSettings
from sparkhost.base import headroom
from sparkhost.base.files import MANAGED, File, NoFile
from sparkhost.base.installed import Installed
from sparkhost.base.resource import from_json
from sparkhost.base.units import GIB
from sparkhost.training_slice import slices
from tasks import tools as measure

COMMANDS = ("spark", "spark-doctor", "spark-estimate", "spark-field-report", "spark-profile")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The measure's files below a directory, with the paths in the entry points changed to it, and nothing else."""
    root = tmp_path_factory.mktemp("host")
    for resource in measure.apply(ToolsSettings()):
        if isinstance(resource, File):
            path = root / resource.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(resource.content.replace("/opt/sparkfleet", f"{root}/opt/sparkfleet"))
            path.chmod(resource.mode)
        elif isinstance(resource, Installed):
            home = root / "opt/sparkfleet/lib" / resource.name
            for name, source in resource.modules.items():
                path = home / resource.digest / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(source)
            (home / "current").symlink_to(resource.digest)
    return root


def call(host: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """As a user calls it, but by this interpreter, isolated and without site-packages as the first line says."""
    command = [sys.executable, "-IS", str(host / "usr/local/bin" / name), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_with_examples_and_exit_codes(host: Path, name: str) -> None:
    done = call(host, name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: {name}" in done.stdout
    assert "examples:" in done.stdout
    assert "--json" in done.stdout
    assert "xit code" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 130


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_is_one_line_and_exit_code_2(host: Path, name: str) -> None:
    done = call(host, name, "/nonexistent")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_installed_recipe_profiles_for_real(host: Path, tmp_path: Path) -> None:
    recipe = host / "opt/sparkfleet/share/recipes/allocate.toml"
    words = ["--plain", "--by", "processes", "--headroom", "256M", "--vary", "batch=1,2", "--set", "mib=32"]
    done = call(host, "spark-profile", *words, "--recipe", str(recipe), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "recommended: batch 2" in done.stdout


def page(host: Path, name: str) -> str:
    return (host / f"usr/local/share/man/man1/{name}.1").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_man_page_has_every_option(host: Path, name: str) -> None:
    """It lies in the repository: `python -m sparkfleet.docs` makes it anew."""
    shown = call(host, name, "--help").stdout
    options = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", shown, re.MULTILINE))
    assert "--json" in options
    written = page(host, name).replace("\\-", "-")
    assert options <= set(re.findall(r"--[a-z-]+", written))
    assert set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", written, re.MULTILINE)) <= options


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
@pytest.mark.parametrize("name", COMMANDS)
def test_the_man_page_is_one(host: Path, name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"],
        input=page(host, name),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert "--json" in re.sub(r"\x1b\[\d*m|.\x08", "", done.stdout).replace("\u2010", "-")


@pytest.mark.parametrize(
    ("line", "word", "before", "wanted"),
    [
        ("spark-estimate --meth", "--meth", "spark-estimate", ["--method"]),
        ("spark-estimate --method s", "s", "--method", ["sft", "serve"]),
        ("spark-doctor --j", "--j", "spark-doctor", ["--json"]),
        ("spark-estimate config", "config", "spark-estimate", []),
    ],
)
def test_the_shell_completes_options_and_choices(
    host: Path, line: str, word: str, before: str, wanted: list[str]
) -> None:
    """In a real bash, as its completion calls the function: the command, the word, the word before."""
    name = line.split()[0]
    script = host / f"usr/local/share/bash-completion/completions/{name}"
    wrapper = f'{name}() {{ "{sys.executable}" -IS "{host}/usr/local/bin/{name}" "$@"; }}'
    code = (
        f'{wrapper}; . "{script}"; _sparkfleet_options {name} "{word}" "{before}"; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert sorted(done.stdout.split()) == sorted(wanted)


def test_all_resources_travel_as_json() -> None:
    for made in (measure.apply(ToolsSettings()), measure.remove(ToolsSettings())):
        assert [from_json(resource.to_json()).kind for resource in made] == [resource.kind for resource in made]


def test_every_file_says_whose_it_is_and_is_removed_again() -> None:
    files = [resource for resource in measure.apply(ToolsSettings()) if isinstance(resource, File)]
    assert all(MANAGED in file.content for file in files)
    removed = {resource.path for resource in measure.remove(ToolsSettings()) if isinstance(resource, NoFile)}
    assert removed == {file.path for file in files}


def test_recipes_can_be_left_out_and_go_again() -> None:
    made = measure.apply(ToolsSettings(recipes=False))
    assert not any(isinstance(resource, File) and resource.path.startswith(measure.SHARE) for resource in made)
    gone = [resource for resource in made if isinstance(resource, NoFile)]
    assert {resource.path for resource in gone} == set(measure.shared())


def test_the_threshold_of_the_hosts_watchdog_is_what_stays_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "watchdog.toml"
    (tmp_path / "meminfo").write_text(f"MemTotal: {120 * 2**20} kB\n")
    monkeypatch.setattr(slices, "MEMINFO", tmp_path / "meminfo")
    assert headroom.term_below(path) == 16 * GIB
    for content, expected in (('term_below = "4GiB"', 4), ("term_below = 3", 16), ("=", 16), ("", 16)):
        path.write_text(content)
        assert headroom.term_below(path) == expected * GIB
