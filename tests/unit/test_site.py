"""A site's project, as docs/site.md has it: from `init` on, with the wheel's program and doubles of hosts (sshd.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.doubles import sshd
from tests.unit.test_operations_anywhere import Spark
from tests.unit.test_wheel import ROOT, VERSION, run, uv
from tests.unit.test_wheel import venv as venv
from tests.unit.test_wheel import wheel as wheel

PAGE = (ROOT / "docs" / "site.md").read_text()
FILE = re.compile(r"File\s+`([\w/.-]+)`.*?\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANOTHER = '[project]\ndependencies = ["sparkfleet==0.0.9"]\n[tool.sparkfleet]\n'
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="a measure is planned as root")


@pytest.fixture
def site(venv: Path, tmp_path: Path) -> Path:
    """A new project."""
    done = run(tmp_path, venv / "sparkfleet", "init", "my-lab")
    assert done.returncode == 0, done.stderr
    return tmp_path / "my-lab"


@pytest.fixture
def followed(site: Path) -> Path:
    """The project with the page's measure."""
    files = FILE.findall(PAGE)
    assert [name for name, _ in files] == ["settings/motd.py", "tasks/motd.py", "deploy.py", "controls/motd.py"]
    for name, content in files:
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(content)
    return site


def add_hosts(site: Path, ports: dict[str, int], **defaults: Any) -> None:
    """Doubles as the project's hosts; the key stands beside the fleet file."""
    raw = yaml.safe_load(sshd.fleet_of(site, ports).read_text())
    for host in raw["hosts"].values():
        host["user"] = "root"
    raw["defaults"] = defaults
    (site / "fleet.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))


def test_a_new_project_pins_its_version_and_says_what_comes_next(site: Path, venv: Path) -> None:
    assert sorted(str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()) == [
        ".github/workflows/drift.yml",
        ".gitignore",
        "README.md",
        "deploy.py",
        "fleet.yaml",
        "pyproject.toml",
    ]
    assert f'"sparkfleet=={VERSION}"' in (site / "pyproject.toml").read_text()
    assert not [path for path in site.rglob("*") if path.is_file() and re.search(r"@[A-Z]+@", path.read_text())]
    yaml.safe_load((site / ".github/workflows/drift.yml").read_text())
    done = run(site, venv / "sparkfleet", "drift")
    said = "fleet.yaml:10: hosts: is empty, expected at least one host: `sparkfleet enrol NAME` adds one\n"
    assert (done.returncode, done.stderr) == (4, said)


def test_uv_locks_it_with_the_wheel(site: Path, wheel: Path) -> None:
    uv(site, "lock", "--quiet", "--no-managed-python", "--find-links", wheel.parent)
    assert f'name = "sparkfleet"\nversion = "{VERSION}"' in (site / "uv.lock").read_text()


@pytest.mark.parametrize("name", ["there", "a b", ".", "gone/my-lab"])
def test_init_writes_all_or_nothing(name: str, venv: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    done = run(tmp_path, venv / "sparkfleet", "init", name)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_enrol_goes_on_from_there(site: Path, venv: Path) -> None:
    with sshd.serving(Spark()) as port:
        done = run(site, venv / "sparkfleet", "enrol", "one", "--address", "127.0.0.1", "--port", str(port))
    # Nobody confirms the host's key here. What it found out before is what counts: which fleet it is about.
    assert done.returncode == 4, done.stderr
    assert "host key" in done.stdout + done.stderr
    assert "which fleet file" not in done.stderr


def test_a_mistake_in_the_sites_settings_is_a_line_of_the_fleet_file(followed: Path, venv: Path) -> None:
    text = "defaults:\n  motd:\n    txt: hi\nhosts:\n  one: {settings: {motd: {text: 3, state: on}}}\n"
    (followed / "fleet.yaml").write_text(text)
    done = run(followed, venv / "sparkfleet", "drift")
    assert (done.returncode, done.stderr.splitlines()) == (
        4,
        [
            "fleet.yaml:3: defaults.motd.txt: unknown key, did you mean text?",
            "fleet.yaml:5: hosts.one.settings.motd.state: got 'on', expected present, unmanaged or absent",
            "fleet.yaml:5: hosts.one.settings.motd.text: got 3, expected text: put it in quotes",
        ],
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("settings/swap.py", "", "settings/swap.py: swap is a measure of sparkfleet's: choose another name"),
        ("settings/motd.py", "x = 1\n", "settings/motd.py: has 0 classes of sparkfleet.settings.Measure, expected one"),
        ("settings/motd.py", "\n\nx = = 1\n", "settings/motd.py:3: is no Python: invalid syntax"),
        ("settings/motd.py", "\nimport gone\n", "settings/motd.py:2: ModuleNotFoundError: No module named 'gone'"),
        ("controls/motd.py", "", "controls/motd.py: CONTROLS: expected at least one sparkfleet.audit.model.Control"),
        ("controls/motd.py", "LOOKS = {'swaps': ['x']}\n", "controls/motd.py: LOOKS: got 'swaps', expected motd or a"),
        ("controls/motd.py", "LOOKS = {'motd': 'cat x'}\n", "LOOKS: motd: expected a command word by word"),
        ("deploy.py", "x = 1\n", "deploy.py: does not call all_measures() of sparkfleet.operations"),
        ("pyproject.toml", "[tool.sparkfleet]\nflet = 'x'\n", "tool.sparkfleet: expected `fleet` alone"),
        ("pyproject.toml", "[tool\n", "pyproject.toml: is not TOML: "),
        ("pyproject.toml", ANOTHER, f"wants sparkfleet==0.0.9, and this is {VERSION}: say `uv run sparkfleet`"),
    ],
)
def test_a_mistake_in_the_project_is_one_line(followed: Path, name: str, content: str, said: str, venv: Path) -> None:
    (followed / name).write_text(content)
    (followed / "fleet.yaml").write_text("hosts: {one: {address: 127.0.0.1, port: 1}}\n")
    done = run(followed, venv / "sparkfleet", "drift")
    assert done.returncode == 4
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('"LAB-MOTD-01"', '"SPK-MOTD-01"', "got the id 'SPK-MOTD-01', expected one such as LAB-MOTD-01"),
        ('measure="motd"', 'measure="mod"', "LAB-MOTD-01: there is no measure 'mod'"),
        ("CONTROLS = (", "CONTROLS = 2 * (", "the id LAB-MOTD-01 is there twice"),
    ],
)
def test_a_control_that_is_none_is_refused(followed: Path, was: str, now: str, said: str, venv: Path) -> None:
    text = (followed / "controls/motd.py").read_text()
    (followed / "controls/motd.py").write_text(text.replace(was, now))
    done = run(followed, venv / "sparkfleet", "audit", "@local")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert said in done.stderr


@ROOT_ONLY
def test_drift_tells_of_the_sites_operations_beside_ours(followed: Path, venv: Path) -> None:
    """On this machine itself, dry: pyinfra's real operation, asked by its real facts."""
    done = run(followed, venv / "sparkfleet", "drift", "@local", "--json", "-")
    assert done.returncode in (1, 2), done.stderr
    found = json.loads(done.stdout)["hosts"]["@local"]["measures"]
    assert found["site"]["changes"] == [{"what": "Message of the day", "summary": "change it", "diff": ""}]
    assert found["swap"]["changes"]


@ROOT_ONLY
def test_the_audit_has_the_sites_controls(followed: Path, venv: Path, tmp_path: Path) -> None:
    """On this machine itself, by the real probe."""
    (tmp_path / "motd").write_text("Jobs start with spark-run.\n")
    path = followed / "controls/motd.py"
    there = path.read_text()
    path.write_text(there.replace("/etc/motd", str(tmp_path / "motd")))
    words = ("audit", "@local", "--measure", "motd", "--json", "-", "--threshold", "low", "--no-store")
    done = run(followed, venv / "sparkfleet", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (verdict["control"], verdict["status"]) == ("LAB-MOTD-01", "pass")
    assert verdict["command"] == f"cat {tmp_path}/motd"
    path.write_text(path.read_text().replace("LOOKS", "ROOT_LOOKS"))
    (tmp_path / "motd").write_text("Another.\n")
    assert run(followed, venv / "sparkfleet", *words).returncode == 1


DEPLOY = """\
from pyinfra.operations import server

from sparkfleet.operations import all_measures, host_settings

server.shell(name="Say it", commands=[f"echo {host_settings().motd.text}"])
all_measures()
"""


def test_a_deploy_does_both_and_tells_of_both(followed: Path, venv: Path) -> None:
    spark = Spark()
    (followed / "deploy.py").write_text(DEPLOY)
    with sshd.serving(spark) as port:
        add_hosts(followed, {"one": port}, motd={"text": "from the fleet file"})
        done = run(followed, venv / "sparkfleet", "deploy", "--yes", "--json", "-")
    found = json.loads(done.stdout)["hosts"]["one"]
    assert any("echo from the fleet file" in line for line in spark.lines), done.stderr
    assert found["measures"]["site"]["changes"] == [{"what": "Say it", "summary": "change it", "diff": ""}]
    assert found["measures"]["swap"]["changes"]
    assert found["state"] == "changed", found


def test_a_failure_of_the_sites_fails_the_host_with_its_reason(followed: Path, venv: Path) -> None:
    class Refuses(Spark):
        def __call__(self, line: str, text: str, channel: Any) -> None:
            if "echo" in line and "sparkhost" not in line and "from-us" in line:
                sshd.answer(channel, rc=1, error="no room\n")
            else:
                super().__call__(line, text, channel)

    (followed / "deploy.py").write_text(DEPLOY)
    with sshd.serving(Refuses()) as bad, sshd.serving(Spark()) as good:
        add_hosts(followed, {"bad": bad, "good": good}, motd={"text": "from-us"})
        done = run(followed, venv / "sparkfleet", "deploy", "--yes", "--json", "-")
    found = json.loads(done.stdout)["hosts"]
    assert (done.returncode, found["good"]["state"], found["bad"]["state"]) == (1, "changed", "failed")
    assert found["bad"]["reason"] == "site: Say it: no room"


def test_upgrading_is_told_by_drift(followed: Path, venv: Path) -> None:
    """A host whose history is of another version: what differs, and that this is why."""

    class Older(Spark):
        def more(self, request: dict[str, Any]) -> dict[str, Any]:
            stands = {"version": "0.0.9", "at": "2026-11-01T00:00:00Z", "result": "clean", "settings": "s"}
            return {"history": {"measures": {"swap": stands}, "last": None}}

    (followed / "deploy.py").write_text(DEPLOY)
    with sshd.serving(Older()) as port:
        add_hosts(followed, {"one": port})
        done = run(followed, venv / "sparkfleet", "drift")
    assert done.returncode == 2, done.stderr
    assert f"swap: applied by another version: 0.0.9 on 2026-11-01; this is {VERSION}" in done.stdout


def test_the_audits_files_import_no_pyinfra(followed: Path, venv: Path) -> None:
    ask = "import sys; from pathlib import Path; from sparkfleet import site; site.use(Path.cwd()); "
    ask += "print([name for name in sys.modules if name.split('.')[0] in ('pyinfra', 'tasks', 'sparkhost')])"
    assert run(followed, venv / "python", "-c", ask).stdout == "[]\n"


def test_one_process_is_about_one_project(followed: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pyproject.toml").write_text("[tool.sparkfleet]\n")
    ask = "import sys; from pathlib import Path; from sparkfleet import site; [site.use(Path(p)) for p in sys.argv[1:]]"
    words = [sys.executable, "-c", ask, *map(str, (followed, followed, tmp_path / "other"))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = f"{tmp_path}/other/pyproject.toml: measures of {followed} are in use: run a command for each project"
    assert said in done.stderr.splitlines()[-1]
