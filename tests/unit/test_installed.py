"""Programs that stay on a host: whole, byte-compiled, switched in one step, and found when somebody changed them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet.host_sources import HOST, imported
from sparkhost.base import installed
from sparkhost.base.installed import Installed, NotInstalled
from sparkhost.base.resource import Context, Failed
from tasks.lib.programs import program

MODULES = {"sparkhost/__init__.py": "", "sparkhost/tool/__init__.py": "VALUE = 1\n"}


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(installed, "LIBRARY", tmp_path / "opt/sparkfleet/lib")
    return tmp_path / "opt/sparkfleet/lib"


def release(digest: str, modules: dict[str, str] | None = None) -> Installed:
    return Installed("tool", digest, modules or MODULES)


def runs(library: Path) -> str:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import sparkhost.tool as t; print(t.VALUE, t.__cached__)"
    command = [sys.executable, "-ISB", "-c", code, str(library / "tool/current")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def converge(wanted: Installed) -> list[str]:
    changes = [change.summary for change in wanted.plan(Context())]
    wanted.apply()
    assert list(wanted.plan(Context())) == []
    return changes


@pytest.mark.parametrize("path", sorted((HOST / "sparkhost").rglob("*.py")), ids=lambda p: str(p.relative_to(HOST)))
def test_imports_are_found_as_python_finds_them(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    files = {HOST / f"{name.replace('.', '/')}{end}" for name in names for end in (".py", "/__init__.py")}
    assert set(imported(path.read_text())) == {found for found in files if found.is_file()}


def test_a_program_is_installed_and_a_second_look_finds_nothing(library: Path) -> None:
    assert converge(release("aa")) == ["install the program tool (not installed)", "link to aa"]
    assert runs(library).startswith("1 ")
    assert list((library / "tool/aa/sparkhost/tool/__pycache__").glob("*.pyc")), "starts without compiling"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("rm sparkhost/tool/__init__.py", "sparkhost/tool/__init__.py is missing"),
        ("echo VALUE=2 > sparkhost/tool/__init__.py", "sparkhost/tool/__init__.py was changed"),
        ("touch sparkhost/json.py", "sparkhost/json.py is not part of it"),
        ("chmod o+w sparkhost", "aa/sparkhost can be written by others"),
        ("cp sparkhost/tool/__init__.py x; ln -sf $PWD/x sparkhost/tool/__init__.py", "tool/__init__.py was changed"),
    ],
)
def test_damage_is_named_and_repaired(library: Path, damage: str, reason: str) -> None:
    converge(release("aa"))
    subprocess.run(damage, shell=True, check=True, cwd=library / "tool/aa")
    (summary,) = converge(release("aa"))
    assert reason in summary
    assert runs(library).startswith("1 ")


def test_the_release_before_stays_for_what_still_runs_and_older_ones_go(library: Path) -> None:
    for number, digest in enumerate(("aa", "bb", "cc")):
        converge(release(digest, {**MODULES, "sparkhost/tool/__init__.py": f"VALUE = {number}\n"}))
    assert runs(library).startswith("2 ")
    assert sorted(path.name for path in (library / "tool").iterdir()) == ["bb", "cc", "current"]


def test_what_does_not_compile_never_gets_there(library: Path) -> None:
    converge(release("aa"))
    broken = release("bb", {**MODULES, "sparkhost/tool/__init__.py": "def\n"})
    with pytest.raises(Failed, match="does not compile on this host's Python"):
        broken.apply()
    assert runs(library).startswith("1 ")
    assert sorted(path.name for path in (library / "tool").iterdir()) == ["aa", "current"]


def test_removal_leaves_nothing_and_no_empty_directories(library: Path, tmp_path: Path) -> None:
    converge(release("aa"))
    gone = NotInstalled("tool")
    assert [change.summary for change in gone.plan(Context())] == ["remove"]
    gone.apply()
    assert list(gone.plan(Context())) == []
    assert not library.parent.exists()


def test_a_program_is_made_of_what_it_imports_and_nothing_else() -> None:
    made = program("guard", "ssh/guard.py")
    assert {"sparkhost/ssh/guard.py", "sparkhost/base/resource.py", "sparkhost/__init__.py"} <= made.modules.keys()
    assert "sparkhost/uv/resources.py" not in made.modules
    assert made.modules["sparkhost/ssh/guard.py"] == (HOST / "sparkhost/ssh/guard.py").read_text()
    with pytest.raises(FileNotFoundError):
        program("nothing", "nothing")
