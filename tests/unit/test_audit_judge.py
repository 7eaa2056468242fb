"""Verdicts: what happens without evidence, with a judge that fails, and with hosts that were not seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from sparkfleet.audit.command import exit_code
from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.judge import judge_run
from sparkfleet.audit.model import (
    Control,
    Evidence,
    HostRun,
    Judgement,
    NoEvidence,
    Observation,
    Severity,
    Status,
    Verdict,
    WaiverNote,
)
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import limited
from sparkfleet.settings import Fleet, FleetHost, HostSettings
from tests.compliance.fixtures import BY_ID, load, path_of

SWAP = BY_ID["SPK-SWAP-01"]
KEYS = BY_ID["SPK-FLEET-02"]
SETTINGS = HostSettings()


def host(name: str = "a", control: Control = SWAP, case: str = "pass") -> HostRun:
    return HostRun(name, next(iter(load(path_of(control.id, case)).evidence().values())))


def one(run: HostRun, control: Control = SWAP, settings: HostSettings | None = SETTINGS) -> Verdict:
    known = {} if settings is None else {run.name: settings}
    (verdict,) = judge_run([run], known, [control])
    return verdict


def raising(error: BaseException) -> Control:
    def judge(evidence: Evidence, settings: HostSettings) -> Judgement:
        raise error

    return replace(SWAP, judge=judge)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoEvidence("nothing\nthere"), "nothing there"),
        (NoEvidence(), "no evidence"),
        (ValueError("bad\x1b[2J"), "the judge failed on this evidence: ValueError: bad\\x1b[2J"),
        (RecursionError(), "the judge failed on this evidence: RecursionError: "),
    ],
)
def test_a_judge_that_fails_is_an_error_of_one_line(error: Exception, said: str) -> None:
    verdict = one(host(), raising(error))
    assert (verdict.status, verdict.saw) == (Status.ERROR, said.strip())


def test_a_judge_cannot_waive_or_excuse() -> None:
    control = replace(SWAP, judge=lambda evidence, settings: Judgement(Status.WAIVED, "w", "s"))
    assert one(host(), control).status is Status.ERROR


def test_a_failure_names_what_a_deploy_would_refuse() -> None:
    directory = "/etc/systemd/system/sparkfleet-watchdog.service.d"
    units = (
        "Id=sparkfleet-watchdog.service\nDropInPaths=/usr/lib/systemd/system/service.d/10-x.conf "
        f"{directory}/local.conf /etc/systemd/system/service.d/50-sparkfleet.conf\n"
    )
    seen = Evidence({"watchdog_units": Observation("systemctl show", units)})
    control = replace(SWAP, measure="watchdog", judge=lambda *_: Judgement(Status.FAIL, "w", "s"))
    said = f"s; a deploy refuses what overrides it: look at {directory}/local.conf, and remove that first"
    assert one(HostRun("a", seen), control).saw == said
    assert one(HostRun("a", seen), replace(control, judge=lambda *_: Judgement(Status.PASS, "w", "s"))).saw == "s"
    for other in (Evidence({}), Evidence({"watchdog_units": Observation("systemctl show", "nonsense")})):
        assert one(HostRun("a", other), control).saw == "s"


def test_a_host_without_evidence_has_a_verdict_for_each_control() -> None:
    gone = HostRun("a", None, "connection refused", unreachable=True)
    verdicts = judge_run([gone], {"a": SETTINGS}, CONTROLS)
    single = [verdict for verdict in verdicts if verdict.host]
    assert {verdict.status for verdict in single} == {Status.UNREACHABLE}
    assert {verdict.saw for verdict in single} == {"connection refused"}
    assert {verdict.status for verdict in verdicts if not verdict.host} == {Status.ERROR}
    assert len(verdicts) == len(CONTROLS)
    assert one(replace(gone, unreachable=False)).status is Status.ERROR


def test_why_root_saw_nothing_is_said_by_what_root_should_have_seen() -> None:
    run = HostRun("a", Evidence({}), "sudo refused the password: 1 incorrect password attempt")
    assert one(run).saw == run.problem


@pytest.mark.parametrize("state", ["unmanaged", "absent"])
def test_what_the_fleet_file_does_not_ask_for_does_not_apply(state: str) -> None:
    settings = HostSettings.model_validate({"swap": {"state": state}})
    verdict = one(host(case="fail"), SWAP, settings)
    assert (verdict.status, verdict.saw) == (Status.NOT_APPLICABLE, f"swap is {state} in the fleet file")


def test_a_host_that_has_left_the_fleet_file_is_an_error() -> None:
    assert one(host(), SWAP, None).saw == "the host is not in the fleet file"


@pytest.mark.parametrize("hosts", [[], [host()]])
def test_an_audit_of_nothing_is_bad_configuration(hosts: list[HostRun]) -> None:
    with pytest.raises(CommandFailed) as caught:
        judge_run(hosts, {}, [] if hosts else [SWAP])
    assert caught.value.code is ExitCode.BAD_CONFIGURATION


def test_what_a_host_says_cannot_write_to_a_terminal() -> None:
    seen = Observation("cat\x1b[2J", "Filename Type Size Used Priority\n\x1b]0;x\x07\u202e p 1 1 1\n" + "x" * 10_000)
    verdict = one(HostRun("a", Evidence({"swaps": seen})))
    assert verdict.status is not Status.PASS
    for text in (verdict.saw, verdict.command, verdict.wanted):
        assert text.isprintable()
        assert len(text) < 2000


def fleet(*runs: HostRun) -> Verdict:
    (verdict,) = judge_run(runs, {}, [KEYS])
    return verdict


def test_hosts_are_compared() -> None:
    case = load(path_of(KEYS.id, "fail"))
    first, second = (HostRun(name, evidence) for name, evidence in case.evidence().items())
    assert fleet(first, second).status is Status.FAIL
    assert "spark1, spark2 share ssh-ed25519 SHA256:" in fleet(first, second).saw
    assert fleet(first).status is Status.NOT_APPLICABLE
    lost = HostRun("c", None, "no route", unreachable=True)
    assert fleet(first, second, lost).status is Status.FAIL, "what was seen is enough to fail"
    assert fleet(first, lost).saw == "not seen: c", "never a pass of what was not seen"
    assert fleet(first, lost).status is Status.ERROR
    assert fleet(first, HostRun("c", Evidence({}))).status is Status.ERROR


def verdict(status: Status, waiver: str = "") -> Verdict:
    note = WaiverNote("r", "o", date(2026, 1, 1), waiver) if waiver else None
    return Verdict(SWAP.id, "a", status, "w", "s", "c", note)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.PASS, Status.NOT_APPLICABLE, Status.WAIVED], 0),
        ([Status.PASS, Status.FAIL], 1),
        ([Status.FAIL, Status.ERROR], 3),
        ([Status.FAIL, Status.UNREACHABLE], 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst(statuses: list[Status], code: int) -> None:
    verdicts = [verdict(status) for status in statuses]
    assert exit_code(verdicts, CONTROLS, Severity.LOW) == code
    assert exit_code([*verdicts, verdict(Status.FAIL, "expired")], CONTROLS, Severity.LOW) == 4


def test_failures_below_the_threshold_are_not_counted() -> None:
    low = Verdict("SPK-HOST-12", "a", Status.FAIL, "w", "s", "c")
    assert exit_code([low], CONTROLS, Severity.MEDIUM) == 0
    assert exit_code([low], CONTROLS, Severity.LOW) == 1


def test_limits_name_hosts_groups_and_globs() -> None:
    hosts = tuple(
        FleetHost(name, None, None, None, None, groups, SETTINGS)
        for name, groups in (("spark1", ("a",)), ("spark2", ("b",)), ("other", ()))
    )
    whole = Fleet(Path("known_hosts"), ("a", "b"), hosts)
    names = {
        (): "spark1 spark2 other",
        ("b",): "spark2",
        ("spark*",): "spark1 spark2",
        ("other", "a"): "spark1 other",
    }
    for limits, expected in names.items():
        assert [item.name for item in limited(whole, limits)] == expected.split()
    with pytest.raises(CommandFailed, match="--limit 'spork1' fits no host or group: there are a, b, spark1"):
        limited(whole, ["spark1", "spork1"])
