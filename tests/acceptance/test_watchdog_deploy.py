"""The measure watchdog on a real host: deployed twice, broken, found, repaired, rebooted, refused, taken off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.auditing import audit, verdicts
from tests.integration.deploying import all_but, deploy, fleet, sparkfleet
from tests.integration.host_state import state_of
from tests.integration.watching import STATE, UNIT, active, ended, holds, job, until, watched_fleet
from tests.lab import Host, Lab

ONLY = ("--measure", "watchdog")
BREAKS = {
    "systemctl stop sparkfleet-watchdog": {"01", "02", "03", "04", "05", "06"},
    "systemctl kill -s STOP sparkfleet-watchdog; rm /run/sparkfleet/watchdog/state.json": {"01", "02", "03", "05"},
    "systemctl disable sparkfleet-watchdog": {"07"},
    "echo 'nonsense = 1' >> /etc/sparkfleet/watchdog.toml": {"08"},
    "sed -i 's/^term_below.*/term_below = \"200MiB\"/' /etc/sparkfleet/watchdog.toml;"
    " systemctl reload sparkfleet-watchdog": {"02"},
    "sed -i 's/ run$/ run --dry-run/' /etc/systemd/system/sparkfleet-watchdog.service;"
    " systemctl daemon-reload; systemctl restart sparkfleet-watchdog": {"03"},
    "echo 0 > /proc/$(systemctl show -P MainPID sparkfleet-watchdog)/oom_score_adj": {"04"},
    "sed -i 's/^MemoryMin.*/MemoryMin=1M/' /etc/systemd/system/sparkfleet.slice; systemctl daemon-reload": {"06"},
}


@pytest.fixture(scope="module")
def path(lab: Lab, spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return watched_fleet(lab, [spark1], tmp_path_factory.mktemp("fleet") / "fleet.yaml")


def failing(lab: Lab, path: Path) -> set[str]:
    """Numbers of the controls that fail; an error is none of them, and must not be."""
    done = audit(lab, path, *ONLY)
    assert verdicts(done, "error") == set(), done.stdout
    return {control.rpartition("-")[2] for control, _ in verdicts(done)}


def answering(host: Host) -> None:
    until(host, f"test -s {STATE}")


def test_a_second_deploy_changes_nothing_and_the_audit_is_green(lab: Lab, spark1: Host, path: Path) -> None:
    first = deploy(lab, path)
    assert first.rc == 0, first.output
    answering(spark1)
    assert deploy(lab, path).changes(spark1.name) == {}
    assert failing(lab, path) == set()
    spark1.snapshot("audited")


@pytest.mark.parametrize("commands", BREAKS)
def test_each_break_is_named_and_nothing_else_and_mended_by_a_deploy(
    lab: Lab, spark1: Host, path: Path, commands: str
) -> None:
    spark1.restore("audited")
    spark1.console_run(commands)
    assert failing(lab, path) == BREAKS[commands]
    if "STOP" in commands:
        return  # nothing of the deploy's has changed: systemd restarts a stopped one
    mended = deploy(lab, path)
    assert mended.rc == 0, mended.output
    assert mended.changes(spark1.name)["watchdog"] != []
    answering(spark1)
    assert failing(lab, path) == set()
    assert deploy(lab, path).changes(spark1.name) == {}


OVERRIDES = {
    f"/etc/systemd/system/{UNIT}.service.d/local.conf": "[Service]\\nOOMScoreAdjust=100\\nMemoryMin=0",
    "/etc/systemd/system/sparkfleet.slice.d/local.conf": "[Slice]\\nMemoryMin=0",
    "/etc/systemd/system/sparkfleet-gpu-sampler.service.d/local.conf": "[Service]\\nMemoryMax=infinity",
}


@pytest.mark.parametrize("file", OVERRIDES)
def test_somebodys_file_that_outranks_ours_is_refused_until_it_is_gone(
    lab: Lab, spark1: Host, path: Path, file: str
) -> None:
    spark1.restore("audited")
    unit = file.split("/")[4].removesuffix(".d")
    restart = "" if unit.endswith(".slice") else f"; systemctl restart {unit}"
    spark1.console_run(f"mkdir -p {file.rpartition('/')[0]}; printf '{OVERRIDES[file]}\\n' > {file}")
    spark1.console_run(f"systemctl daemon-reload{restart}")
    red = audit(lab, path, *ONLY)
    if UNIT in unit:
        assert {("SPK-WATCHDOG-04", spark1.name), ("SPK-WATCHDOG-06", spark1.name)} <= verdicts(red)
        assert f"a deploy refuses what overrides it: look at {file}" in " ".join(red.stdout.split())
    refused = deploy(lab, path)
    assert refused.rc == 1
    assert f"{file} overrides /etc/systemd/system/{unit}: remove that" in refused.output
    assert "Traceback" not in refused.output
    spark1.console_run(f"rm -r {file.rpartition('/')[0]}; systemctl daemon-reload{restart}")
    mended = deploy(lab, path)
    assert mended.rc == 0, mended.output
    answering(spark1)
    assert failing(lab, path) == set()
    assert deploy(lab, path).changes(spark1.name) == {}


def test_broken_repaired_and_rebooted_it_is_green(lab: Lab, spark1: Host, path: Path) -> None:
    spark1.restore("audited")
    spark1.console_run(f"systemctl disable --now {UNIT}; echo 'nonsense = 1' >> /etc/sparkfleet/watchdog.toml")
    assert {"01", "07", "08"} <= failing(lab, path)
    assert deploy(lab, path).rc == 0
    assert failing(lab, path) == set()
    spark1.reboot()
    answering(spark1)
    assert failing(lab, path) == set()
    assert deploy(lab, path).changes(spark1.name) == {}


def test_a_bad_value_never_replaces_a_good_configuration(lab: Lab, spark1: Host, path: Path, tmp_path: Path) -> None:
    """Too much for this host, which only the host knows; and the watchdog that runs is left alone."""
    spark1.restore("audited")
    before = spark1.sudo(f"md5sum /etc/sparkfleet/watchdog.toml; systemctl show -P MainPID {UNIT}").stdout
    large: dict[str, Any] = {"term_below": "1GiB", "kill_below": "512MiB"}
    bad = watched_fleet(lab, [spark1], tmp_path / "bad.yaml", **large)
    done = sparkfleet(lab, bad, "deploy", "--yes")
    assert done.rc == 1
    assert "watchdog: term_below is 1024 MiB, more than half of this host's" in done.errors + str(done.hosts)
    assert "Traceback" not in done.errors
    assert spark1.sudo(f"md5sum /etc/sparkfleet/watchdog.toml; systemctl show -P MainPID {UNIT}").stdout == before
    assert "02" in failing(lab, bad), "the audit wants what the fleet file says"
    assert failing(lab, path) == set()


def test_a_host_that_is_too_small_for_the_defaults_gets_everything_else(lab: Lab, spark1: Host, tmp_path: Path) -> None:
    spark1.clean()
    path = tmp_path / "fleet.yaml"
    fleet(
        lab, [spark1], path, {**all_but("swap", "watchdog"), "watchdog": {"term_below": "16GiB", "kill_below": "8GiB"}}
    )
    done = deploy(lab, path)
    assert done.rc == 1
    assert [line for line in done.lines(spark1.name, "not applied") if "watchdog" in line] != []
    assert spark1.run("awk 'NR>1' /proc/swaps").stdout == ""
    assert spark1.run("ls /opt/sparkfleet/lib/watchdog /etc/sparkfleet/watchdog.toml", check=False).stdout == ""


def test_a_deploy_does_not_end_a_job_that_holds_the_memory_already(lab: Lab, spark1: Host, tmp_path: Path) -> None:
    spark1.clean()
    assert deploy(lab, fleet(lab, [spark1], tmp_path / "swap.yaml", all_but("swap"))).rc == 0
    spark1.sudo("cat > /usr/local/lib/hog.py", input=Path("tests/integration/hog.py").read_text())
    job(spark1, "hog", "alice", "800")
    holds(spark1, "hog", 800)
    path = watched_fleet(lab, [spark1], tmp_path / "fleet.yaml", term_below="600MiB", kill_below="300MiB")
    done = deploy(lab, path)
    assert done.rc == 1
    (line,) = {line for line in done.lines(spark1.name, "watchdog") if "MemAvailable is" in line}
    assert "below term_below (600 MiB): the watchdog would end a job at once" in line
    assert active(spark1, "hog", UNIT) == ["active", "inactive"]
    spark1.console_run("systemctl stop hog")
    assert deploy(lab, path).rc == 0
    assert active(spark1, UNIT) == ["active"]


def test_taken_off_it_leaves_nothing_but_post_mortems(lab: Lab, spark1: Host, tmp_path: Path) -> None:
    spark1.clean()
    # Swap off first, by itself: the rest is then the watchdog's.
    only_swap = fleet(lab, [spark1], tmp_path / "swap.yaml", all_but("swap"))
    assert deploy(lab, only_swap).rc == 0
    before = state_of(spark1)
    assert deploy(lab, watched_fleet(lab, [spark1], tmp_path / "all.yaml")).rc == 0
    spark1.sudo("cat > /usr/local/lib/hog.py", input=Path("tests/integration/hog.py").read_text())
    job(spark1, "hog", "alice", "4000 slow", slice_="other.slice")  # training.slice is compared
    ended(spark1, "hog")
    until(spark1, "ls /var/lib/sparkfleet/watchdog/events/*-term.json")
    spark1.sudo("rm /usr/local/lib/hog.py")
    absent = watched_fleet(lab, [spark1], tmp_path / "absent.yaml", state="absent")
    done = deploy(lab, absent)
    assert done.rc == 0, done.output
    left = state_of(spark1) ^ before
    assert left != set()
    assert all(" /var/lib/sparkfleet/watchdog/events/" in line for line in left), left
    assert spark1.run("ls -d /run/sparkfleet/*", check=False).stdout == ""
    assert active(spark1, UNIT) == ["inactive"]
    assert deploy(lab, absent).changes(spark1.name) == {}
