"""Waivers: mistakes are named by their line; what is waived, expired, stale or unused is said."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkfleet.audit import waivers
from sparkfleet.audit.model import Status, Verdict
from sparkfleet.audit.waivers import Waiver
from sparkfleet.settings import FleetError
from tests.unit.audit_runs import verdict

IDS = ("SPK-SWAP-01", "SPK-SWAP-02", "SPK-SSH-01")
TODAY = date(2026, 11, 24)
ENTRY = """\
  - control: SPK-SWAP-01
    hosts: spark*
    reason: it compiles kernels
    owner: jd
    expires: 2027-03-31
"""


def mistakes(text: str, folder: Path) -> list[str]:
    path = folder / "w.yaml"
    path.write_text(text)
    with pytest.raises(FleetError) as caught:
        waivers.load(path, IDS)
    return [line.removeprefix(f"{path}:") for line in caught.value.lines]


def test_a_right_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "version: 1\nwaivers:\n" + ENTRY.replace("it compiles kernels", ">\n      it compiles\n      kernels\n")
    )
    (waiver,) = waivers.load(path, IDS)
    assert waiver == Waiver("SPK-SWAP-01", "spark*", "it compiles kernels", "jd", date(2027, 3, 31), f"{path}:3")


@pytest.mark.parametrize("text", ["waivers: []\n", "waivers:\n# the last one was taken out\n"])
def test_a_file_may_hold_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    assert waivers.load(path, IDS) == ()


def test_the_example_is_right() -> None:
    (waiver,) = waivers.load(Path(__file__).parents[2] / "inventories" / "example.waivers.yaml", IDS)
    assert waiver.hosts == "spark-build*"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reason: it", "raeson: it", ["4: waivers[0].raeson: unknown key, did you mean reason?"]),
        ("    owner: jd\n", "", ["2: waivers[0].owner: is missing"]),
        ("SPK-SWAP-01", "SPK-SWAP-1", ["2: waivers[0].control: got 'SPK-SWAP-1', did you mean SPK-SWAP-01?"]),
        ("SPK-SWAP-01", "disk", ["2: waivers[0].control: got 'disk', which is no control (docs/audit.md lists them)"]),
        ("2027-03-31", "31.3.2027", ["6: waivers[0].expires: got '31.3.2027', expected a day such as 2027-03-31"]),
        ("2027-03-31", "2027-02-30", ["6: waivers[0].expires: got '2027-02-30', expected a day such as 2027-03-31"]),
        ("2027-03-31", "never", ["6: waivers[0].expires: got 'never', expected a day such as 2027-03-31"]),
        ("jd", '" "', ["5: waivers[0].owner: got ' ', expected text that says something"]),
        ("jd", r'"\e[2J"', [r"5: waivers[0].owner: got '\x1b[2J', expected text that says something"]),
        ("jd", "12", ["5: waivers[0].owner: got 12, expected text: put it in quotes"]),
        (
            "spark*",
            "spark 1",
            [
                "3: waivers[0].hosts: got 'spark 1', expected a host's name, or a pattern such as spark* "
                "(`*`, `?` and `[12]` are understood)"
            ],
        ),
        ("    owner: jd\n", "    owner: jd\n    owner: me\n", ["6: waivers[0].owner: is given twice, first on line 5"]),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(old: str, new: str, said: list[str], tmp_path: Path) -> None:
    lines = mistakes("waivers:\n" + ENTRY.replace(old, new), tmp_path)
    assert [line for line in lines if "unknown key" in line or "reason: is missing" not in line] == said


def test_mistakes_about_the_whole(tmp_path: Path) -> None:
    assert mistakes("", tmp_path)[0].endswith("is empty (inventories/example.waivers.yaml shows what belongs here)")
    assert mistakes("- a\n", tmp_path) == ["1: got a list, expected a mapping"]
    assert mistakes("version: 2\nwaivers: 3\n", tmp_path) == [
        "1: version: got 2, expected 1, the only version of this format",
        "2: waivers: got 3, expected a list",
    ]
    assert mistakes("waiver:\n" + ENTRY, tmp_path) == [
        "1: waivers: is missing",
        "1: waiver: unknown key, did you mean waivers?",
    ]


def test_a_second_waiver_of_the_same_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes("waivers:\n" + ENTRY + ENTRY, tmp_path) == [
        "7: waivers[1]: SPK-SWAP-01 on 'spark*' is waived a second time, first on line 2: keep one of them"
    ]


def waiver(expires: str = "2027-03-31", hosts: str = "spark*", control: str = "SPK-SWAP-01", at: int = 2) -> Waiver:
    return Waiver(control, hosts, "why", "jd", date.fromisoformat(expires), f"w.yaml:{at}")


@pytest.mark.parametrize(
    ("status", "expires", "becomes", "state", "said"),
    [
        (Status.FAIL, "2026-11-24", Status.WAIVED, "in force", None),
        (Status.FAIL, "2026-11-23", Status.FAIL, "expired", "it has expired, and the control still fails on spark1"),
        (Status.PASS, "2026-11-24", Status.PASS, "stale", "it is stale, the control passes on spark1: take it out"),
        (Status.PASS, "2026-11-23", Status.PASS, "stale", "it is stale, the control passes on spark1: take it out"),
        (Status.NOT_APPLICABLE, "2026-11-24", Status.NOT_APPLICABLE, None, "the control is not applicable on spark1"),
        (Status.ERROR, "2026-11-24", Status.ERROR, None, "where the control has no evidence"),
        (Status.UNREACHABLE, "2026-11-24", Status.UNREACHABLE, None, "which could not be reached"),
    ],
)
def test_what_a_waiver_does(status: Status, expires: str, becomes: Status, state: str | None, said: str | None) -> None:
    given = [verdict("SPK-SWAP-01", "spark1", status), verdict("SPK-SWAP-02", "spark1", Status.FAIL)]
    (judged, other), notes = waivers.apply(given, [waiver(expires)], TODAY)
    assert judged.status is becomes
    assert (judged.waiver and judged.waiver.state) == state
    assert other == given[1]
    assert len(notes) == (said is not None)
    assert all(said in note and note.startswith("w.yaml:2: waiver of SPK-SWAP-01 on spark*") for note in notes if said)
    assert waivers.any_expired([judged]) == (state == "expired")


def test_one_that_fits_nothing_is_said() -> None:
    given = [verdict("SPK-SWAP-01", "spark1", Status.FAIL)]
    judged, notes = waivers.apply(given, [waiver(hosts="Spark*"), waiver(control="SPK-SSH-01", at=9)], TODAY)
    assert list(judged) == given
    assert [note.split(":")[1] for note in notes] == ["2", "9"]
    assert all("it fits no host of this run" in note for note in notes)


def test_the_longest_lasting_one_speaks() -> None:
    given = [verdict("SPK-SWAP-01", "spark1", Status.FAIL)]
    (judged,), notes = waivers.apply(given, [waiver(), waiver("2026-01-01", hosts="*", at=9)], TODAY)
    assert judged.status is Status.WAIVED
    assert judged.waiver is not None
    assert judged.waiver.expires == date(2027, 3, 31)
    (note,) = notes
    assert "another waiver covers spark1: take it out" in note


def test_a_control_of_the_fleet_is_waived_by_a_star_only() -> None:
    given = [verdict("SPK-SWAP-01", "", Status.FAIL)]
    assert waivers.apply(given, [waiver()], TODAY)[0][0].status is Status.FAIL
    assert waivers.apply(given, [waiver(hosts="*")], TODAY)[0][0].status is Status.WAIVED


made = st.builds(
    Waiver,
    st.sampled_from(IDS),
    st.sampled_from(["*", "spark*", "spark1", "x*"]),
    st.just("why"),
    st.just("jd"),
    st.dates(date(2026, 11, 1), date(2026, 12, 31)),
    st.integers(1, 99).map("w.yaml:{}".format),
)
judged = st.builds(
    verdict,
    st.sampled_from(IDS),
    st.sampled_from(["spark1", "spark2", ""]),
    st.sampled_from([s for s in Status if s is not Status.WAIVED]),
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(judged, max_size=6), st.lists(made, max_size=5, unique_by=lambda w: w.where))
def test_no_waiver_is_silently_gone_and_none_hides_what_was_not_seen(
    verdicts: list[Verdict], given: list[Waiver]
) -> None:
    after, notes = waivers.apply(verdicts, given, TODAY)
    for old, new in zip(verdicts, after, strict=True):
        allowed = {old.status, Status.WAIVED} if old.status is Status.FAIL else {old.status}
        assert new.status in allowed
        assert (new.status is Status.WAIVED) == (new.waiver is not None and new.waiver.state == "in force")
    for one in given:
        waived = any(new.status is Status.WAIVED and one.fits(new) for new in after)
        assert waived or any(note.startswith(f"{one.where}: ") for note in notes)
    assert waivers.apply(after, given, TODAY) == (after, notes)


def test_an_old_run_is_judged_as_of_today() -> None:
    given = [verdict("SPK-SWAP-01", "spark1", Status.FAIL)]
    waived, _ = waivers.apply(given, [waiver()], TODAY)
    assert waivers.apply(waived, [waiver()], date(2027, 4, 1))[0][0].status is Status.FAIL
    assert list(waivers.apply(waived, [], TODAY)[0]) == given
