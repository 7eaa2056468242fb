"""Measures as operations in a deploy that is not ours: pyinfra as it is, in a folder of somebody else's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import paramiko
import pytest

from sparkfleet import operations
from sparkfleet.host_sources import unpacked
from sparkfleet.settings import HostSettings
from tests.doubles import sshd

ROOT = Path(__file__).resolve().parents[2]
REFUSED = {**sshd.EMPTY, "changes": [sshd.CHANGE], "refused": ["not while jobs run"]}


class Spark:
    """A host that has all to be changed, and then has it; it keeps what it was asked."""

    def __init__(self, applied: dict[str, Any] | None = None) -> None:
        self.applied = applied or {**sshd.EMPTY, "changes": [sshd.CHANGE]}
        self.asked: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.typed: list[str] = []

    def __call__(self, line: str, text: str, channel: paramiko.Channel) -> None:
        self.lines.append(line)
        if "sparkhost" not in line:
            sshd.answer(channel, "\n")  # as echo does
            return
        request = unpacked(text)
        self.asked.append(request)
        names = [measure["name"] for measure in request["measures"]]
        changing = [name for name in names if name != "systemd" and "after" not in name and not self.has(name)]
        found = {"notes": [], "unproved": False, **sshd.planned(request, *changing)}
        if request["action"] == "apply":
            rest = {"measures": request["measures"][1:]}
            found |= {"applied": self.applied, "plan": sshd.planned(rest)["plan"]}
        sshd.answer(channel, json.dumps(found | self.more(request)) + "\n")

    def more(self, request: dict[str, Any]) -> dict[str, Any]:
        return {}

    def has(self, name: str) -> bool:
        return name in [one.get("measure") for one in self.asked[:-1] if one["action"] == "apply"]

    @property
    def actions(self) -> list[str]:
        return [request["action"] for request in self.asked]


def pyinfra(folder: Path, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    """pyinfra in a folder; that folder comes first on the path, as it does for a pyinfra of a tool's own."""
    return subprocess.run(
        [sys.executable, "-m", "pyinfra", *arguments],
        cwd=folder,
        env={**os.environ, "PYINFRA_PROGRESS": "off", "HOME": str(folder), **given},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def hosts(folder: Path, stack: ExitStack, user: str = "root", **sparks: sshd.Command) -> str:
    """An inventory of somebody else's with these hosts."""
    ports = {name: stack.enter_context(sshd.serving(spark)) for name, spark in sparks.items()}
    sshd.fleet_of(folder, ports)
    keys = {"ssh_key": str(folder / "key"), "ssh_known_hosts_file": str(folder / "known_hosts")}
    ssh = {"ssh_hostname": "127.0.0.1", "ssh_user": user, **keys}
    found = [(name, {**ssh, "ssh_port": port}) for name, port in ports.items()]
    (folder / "hosts.py").write_text(f"sparks = {found!r}\n")
    return "hosts.py"


def test_every_measure_is_an_operation_with_the_fleet_files_keys() -> None:
    for name, field in HostSettings.model_fields.items():
        found = getattr(operations, name)
        assert f"{name}(_sudo=True)" in found.__doc__
        for key in field.annotation.model_fields:  # type: ignore[union-attr]
            assert f"+ {key}: " in found.__doc__


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["mod=off"], "swap.mod: unknown key, did you mean mode?"),
        (["mode=of"], "swap.mode: got 'of', expected off or keep"),
        (["margin=2"], "swap.margin: got 2, expected a size"),
        (["off"], "swap.state: got 'off', expected present, unmanaged or absent"),
        (["absent", "off"], "swap: all settings but state are given by name"),
    ],
)
@pytest.mark.parametrize("how", ["--dry", "-y"])
def test_a_wrong_setting_is_one_line(tmp_path: Path, call: list[str], said: str, how: str) -> None:
    done = pyinfra(tmp_path, "@local", "sparkfleet.operations.swap", *call, how)
    assert done.returncode == 1
    assert done.stdout.count(said) == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert "pydantic" not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="a measure is planned as root")
def test_a_dry_run_here_shows_what_would_change(tmp_path: Path) -> None:
    done = pyinfra(tmp_path, "@local", "sparkfleet.operations.swap", "margin=2GiB", "--dry", "--diff")
    assert done.returncode == 0, done.stdout
    assert "swap: /etc/systemd/system/swap.d/zz-sparkfleet.conf: would create" in done.stdout
    assert "+ConditionPathExists=/etc/sparkfleet/swap-is-allowed" in done.stdout
    assert re.search(r"sparkfleet\.swap \(margin=2GiB\) +1 \(@local\)", done.stdout), done.stdout


MIXED = """\
from pyinfra.api import deploy
from pyinfra.operations import server

from sparkfleet.operations import swap, uv
from tasks.mine import SAYS


@deploy("my lab")
def my_lab():
    done = swap(mode="off")
    server.shell(name="after", commands=[f"echo {SAYS}"], _if=done.did_change)


server.shell(name="before", commands=["true"])
my_lab()
again = swap(mode="off")
server.shell(name="not again", commands=["echo again"], _if=again.did_change)
uv()
"""


def test_measures_stand_beside_pyinfras_own_operations(tmp_path: Path) -> None:
    spark = Spark()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    (tmp_path / "tasks" / "mine.py").write_text("SAYS = 'swap is off'\n")
    (tmp_path / "deploy.py").write_text(MIXED)
    with ExitStack() as stack:
        done = pyinfra(tmp_path, hosts(tmp_path, stack, one=spark), "deploy.py", "-y")
    assert done.returncode == 0, done.stdout
    shell = [line for line in spark.lines if "sparkhost" not in line]
    assert [word for line in shell for word in ("true", "swap is off", "again") if word in line] == [
        "true",
        "swap is off",
    ]
    assert [(one["action"], one.get("measure")) for one in spark.asked if one["action"] == "apply"] == [
        ("apply", "swap"),
        ("apply", "uv"),
    ]
    # The lock goes back after each, and none waits for another's.
    assert spark.actions.index("record") < len(spark.actions) - 1 - spark.actions[::-1].index("apply")
    assert spark.actions[-1] == "record"


def test_a_refusal_fails_the_operation_on_that_host_alone(tmp_path: Path) -> None:
    bad, good = Spark(REFUSED), Spark()
    text = "from pyinfra.operations import server\nfrom sparkfleet.operations import swap\n\nswap()\n"
    (tmp_path / "deploy.py").write_text(text + "server.shell(commands=['echo next'])\n")
    with ExitStack() as stack:
        done = pyinfra(tmp_path, hosts(tmp_path, stack, bad=bad, good=good), "deploy.py", "-y")
    assert done.returncode == 1
    assert re.search(r"\[bad\] +swap: not while jobs run", done.stdout), done.stdout
    assert not any("echo next" in line for line in bad.lines)
    assert any("echo next" in line for line in good.lines), done.stdout
    assert bad.actions[-1] == good.actions[-1] == "record"


def test_limit_leaves_the_others_alone(tmp_path: Path) -> None:
    one, two = Spark(), Spark()
    (tmp_path / "deploy.py").write_text("from sparkfleet.operations import swap\n\nswap()\n")
    with ExitStack() as stack:
        done = pyinfra(tmp_path, hosts(tmp_path, stack, one=one, two=two), "deploy.py", "-y", "--limit", "two")
    assert done.returncode == 0, done.stdout
    assert not one.asked
    assert "apply" in two.actions


def test_an_answer_without_an_end_costs_one_host(tmp_path: Path) -> None:
    def endless(line: str, text: str, channel: paramiko.Channel) -> None:
        try:
            while True:
                channel.sendall(b"x" * 65536)
        except OSError:
            return

    good = Spark()
    (tmp_path / "deploy.py").write_text("from sparkfleet.operations import swap\n\nswap()\n")
    with ExitStack() as stack:
        done = pyinfra(tmp_path, hosts(tmp_path, stack, endless=endless, good=good), "deploy.py", "-y")
    assert done.returncode == 1
    assert "[endless] swap: lost the host: the answer is longer than 2 MiB" in done.stdout
    assert good.actions[-1] == "record", done.stdout


def test_without_root_it_says_so(tmp_path: Path) -> None:
    spark = Spark()
    (tmp_path / "deploy.py").write_text("from sparkfleet.operations import swap\n\nswap()\n")
    with ExitStack() as stack:
        inventory = hosts(tmp_path, stack, "admin", one=spark)
        done = pyinfra(tmp_path, inventory, "deploy.py", "-y")
    assert done.returncode == 1
    assert "swap: runs as another user than root: add _sudo=True" in done.stdout
    assert not spark.asked


def test_a_sudo_password_is_in_no_command_line(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def asks(line: str, text: str, channel: paramiko.Channel) -> None:
        seen.append((line, text))
        if " -n " in line:
            sshd.answer(channel, rc=1, error="sudo: a password is required\n")
        elif "sparkhost" in line:
            request = unpacked(text.partition("\n")[2])
            sshd.answer(channel, json.dumps({"notes": [], **sshd.planned(request)}))
        else:
            sshd.answer(channel)

    (tmp_path / "deploy.py").write_text(
        "from sparkfleet.operations import swap\n\nswap(_sudo=True, _sudo_password='open sesame')\n"
    )
    with ExitStack() as stack:
        inventory = hosts(tmp_path, stack, "admin", one=asks)
        done = pyinfra(tmp_path, inventory, "deploy.py", "-y")
    assert done.returncode == 0, done.stdout
    assert not any("sesame" in line for line, _ in seen)
    assert any(text.startswith("open sesame\n") for _, text in seen)


def test_a_change_to_sshd_is_proved_from_here(tmp_path: Path) -> None:
    class Guarded(Spark):
        def __call__(self, line: str, text: str, channel: paramiko.Channel) -> None:
            if "oom_score_adj" in line and "sparkhost" not in line:
                self.lines.append(line)
                sshd.answer(channel, "0\n")
                return
            super().__call__(line, text, channel)

        def more(self, request: dict[str, Any]) -> dict[str, Any]:
            kinds = {one["kind"] for measure in request["measures"] for one in measure["resources"]}
            return {"unproved": request["action"] == "apply" and "guarded" in kinds}

    spark = Guarded()
    (tmp_path / "deploy.py").write_text("from sparkfleet.operations import ssh\n\nssh(trial_login=False)\n")
    with ExitStack() as stack:
        done = pyinfra(tmp_path, hosts(tmp_path, stack, one=spark), "deploy.py", "-y")
    assert done.returncode == 0, done.stdout
    steps = [r["step"] for one in spark.asked for m in one["measures"] for r in m["resources"] if "step" in r]
    assert steps == ["restart", "confirm"]
    assert "kept: a new login works" in done.stdout
    assert spark.actions[-1] == "record"


IMPORTS = """\
import sys
sys.path[:0] = sys.argv[1:]
import sparkfleet.operations
from sparkfleet.own_tasks import measure_of
assert measure_of("vllm_source").__name__ == "tasks.vllm_source"
print(sorted(name for name in sys.modules if name.startswith("tasks"))[:1])
import tasks
print(tasks.__file__, measure_of("swap").apply.__module__)
"""


def test_the_name_tasks_stays_the_sites(tmp_path: Path) -> None:
    """Whether ours were loaded before or not; in a checkout, where nobody else has it, it is ours."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()

    def imported(*path: object) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS, *map(str, path)], capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert imported(tmp_path) == ["[]", f"{tmp_path}/tasks/__init__.py tasks.swap"]
    assert imported(ROOT) == ["['tasks']", f"{ROOT}/tasks/__init__.py tasks.swap"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a measure is planned as root")
def test_the_example_of_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    example = tmp_path / "one-measure"
    shutil.copytree(ROOT / "docs" / "examples" / "one-measure", example)
    page = (ROOT / "docs" / "one-measure.md").read_text()
    assert "(examples/one-measure)" in page
    done = pyinfra(example, "@local", "deploy.py", "--dry")
    assert done.returncode == 0, done.stdout
    assert re.search(r"Sparks \| sparkfleet\.swap \(mode=off, margin=2GiB\) +1 \(@local\)", done.stdout), done.stdout
    assert re.search(r"Sparks \| Tell the log +- +1 \(@local\)", done.stdout), done.stdout
    done = pyinfra(example, "@local", "sparkfleet.operations.hardware_watchdog", "unmanaged", "-y")
    assert done.returncode == 0, done.stdout
    assert "No changes" in done.stdout


def test_the_pages_snippets_are_python_that_names_operations() -> None:
    page = (ROOT / "docs" / "one-measure.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    compile(snippet, "docs/one-measure.md", "exec")
    for name in re.findall(r"sparkfleet\.operations\.(\w+)", page):
        assert name in operations.__all__
