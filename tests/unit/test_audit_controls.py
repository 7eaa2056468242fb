"""Every control against its evidence files, and what must be true of all controls together."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sparkfleet.audit.controls import CONTROLS, chosen
from sparkfleet.audit.model import Aspect, Severity, Status
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import HostSettings
from tests.compliance.doubles import DOUBLES, why
from tests.compliance.fixtures import BY_ID, CASES, EVIDENCE, load, path_of

ROOT = Path(__file__).resolve().parents[2]
FILES = [(control.id, case) for control in CONTROLS for case in CASES]


@pytest.mark.parametrize(("control", "case"), FILES)
def test_the_evidence_is_judged_as_it_must_be(control: str, case: str) -> None:
    content = load(path_of(control, case))
    verdict = content.verdict()
    assert (content.control, content.expect) == (control, {"pass": "pass", "fail": "fail"}.get(case, "error"))
    assert verdict.status == content.expect, verdict
    assert verdict.wanted
    assert verdict.saw
    assert verdict.command
    for text in (verdict.wanted, verdict.saw, verdict.command):
        assert text.isprintable()


@pytest.mark.parametrize("control", sorted(BY_ID))
def test_no_part_of_the_evidence_can_be_missing_from_a_pass(control: str) -> None:
    """Each observation that the judge reads is taken away, blanked, cut short and failed in turn."""
    good = load(path_of(control, "pass"))
    judge = BY_ID[control]
    for host, observations in good.hosts.items():
        telling = judge.evidence[0]
        assert telling in observations
        for spoiled in (
            {name: seen for name, seen in observations.items() if name != telling},
            {**observations, telling: {**observations[telling], "output": " \n"}},
            {**observations, telling: {**observations[telling], "output": "", "rc": 124, "error": "no end"}},
            {**observations, telling: {**observations[telling], "output": "Segmentation fault\n"}},
        ):
            content = type(good)(control, "error", {}, good.settings, {**good.hosts, host: spoiled})
            assert content.verdict().status in (Status.ERROR, Status.FAIL)


@pytest.mark.parametrize("control", sorted(BY_ID))
def test_failing_evidence_was_recorded_on_a_broken_host(control: str) -> None:
    """Or is a double of what the lab does not have, and says so."""
    content = load(path_of(control, "fail"))
    if control in DOUBLES:
        assert content.origin == {"double": why(control)}
        return
    boots = content.origin["boot_ids"]
    assert set(boots) == set(content.hosts)
    for boot in boots.values():
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", boot)
    assert content.origin["break"]


def test_there_is_no_evidence_of_something_else() -> None:
    assert {path.name for path in EVIDENCE.iterdir()} == set(BY_ID)
    assert Counter(path.name for path in EVIDENCE.glob("*/*")) == {f"{case}.json": len(BY_ID) for case in CASES}


def test_ids_are_unique_and_never_used_for_another_question() -> None:
    lines = (ROOT / "sparkfleet/audit/controls/ids.txt").read_text().splitlines()
    ever = [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if not line.startswith("#")]
    assert len(dict(ever)) == len(ever)
    assert len(BY_ID) == len(CONTROLS)
    assert {control.id: control.title for control in CONTROLS}.items() <= dict(ever).items()


def test_every_measure_has_controls_of_more_than_one_aspect() -> None:
    for measure in HostSettings.model_fields:
        aspects = {control.aspect for control in CONTROLS if control.measure == measure}
        assert len(aspects) > 1, measure
        assert aspects <= set(Aspect)


def test_every_control_says_what_a_person_needs() -> None:
    for control in CONTROLS:
        assert re.fullmatch(r"SPK-[A-Z]{2,8}-[0-9]{2}", control.id)
        for text in (control.title, control.why, control.source, control.manual_fix):
            assert text.isprintable()
            assert len(text) > 5, control.id
        assert control.evidence
    spread = Counter(control.severity for control in CONTROLS)
    assert set(spread) == set(Severity)
    assert max(spread.values()) <= len(CONTROLS) / 2


def test_the_audit_shares_no_code_with_what_it_judges() -> None:
    """Not one module of the deploy is loaded by any module of the audit: the same bug would blind both."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "sparkfleet" / "audit").rglob("*.py"))
    ]
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "testinfra" in loaded
    assert not loaded & {"tasks", "pyinfra", "sparkhost", "gevent"}


@pytest.mark.parametrize(
    ("ids", "measures", "count"),
    [([], [], len(CONTROLS)), (["SPK-SWAP-01"], [], 1), (["spk-swap-*"], [], 3), ([], ["swap"], 3), ([], ["host"], 31)],
)
def test_controls_are_chosen(ids: list[str], measures: list[str], count: int) -> None:
    assert len(chosen(ids, measures)) == count


@pytest.mark.parametrize(
    ("ids", "measures", "said"),
    [
        (["SPK-SWAP-99"], [], "there is no control 'SPK-SWAP-99'"),
        (
            [],
            ["swop"],
            "no controls for the measure 'swop': "
            "expected cluster_link, cuda_env, gpu_clock, hardware_watchdog, headless, host, ssh, stack, swap, tools, "
            "training_slice, uv, vllm_container, vllm_source, watchdog",
        ),
        (["SPK-SWAP-01"], ["ssh"], "leave no control"),
    ],
)
def test_a_choice_of_nothing_is_bad_configuration(ids: list[str], measures: list[str], said: str) -> None:
    with pytest.raises(CommandFailed, match=said) as caught:
        chosen(ids, measures)
    assert caught.value.code is ExitCode.BAD_CONFIGURATION
