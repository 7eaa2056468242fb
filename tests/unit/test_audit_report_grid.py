"""The terminal report: what it says, at which width, and that no host can act on the terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from sparkfleet.audit.model import HostRun, Run, Status
from sparkfleet.audit.report.grid import render
from sparkfleet.audit.report.lines import shortened, wrapped
from sparkfleet.audit.text import visible, visible_lines
from tests.unit.audit_runs import CONTROLS, HOSTILE_CONTROLS, hostile, large, run, small, verdict

UNTIMED = settings(deadline=None)  # the machine may be busy


def printed(run: Run, controls: Any, width: int = 80, **options: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=width, **options).print(render(run, controls))
    return out.getvalue()


def test_the_grid_has_the_worst_host_first() -> None:
    assert (
        "         SWAP  SSH  UV  HOST\n"
        "         00    0    0   0\n"
        "         12    1    1   1\n"
        "spark2   F.    w    .   E   \n"
        "spark3   UU    U    U   U   \n"
        "(fleet)                 F   \n"
        "spark10  ..    .    F   .   \n"
        "spark1   ..    .    .   -   \n"
    ) in printed(small(), CONTROLS)


def test_a_failing_verdict_is_told_with_what_to_do() -> None:
    assert (
        "SPK-SWAP-01  fail  critical\n"
        "  title     no swap is in use\n"
        "  on        spark2\n"
        "  wanted    no swap\n"
        "  saw       /swap.img, 16 GiB\n"
        "  seen by   cat /proc/swaps\n"
        "  by hand   mend SPK-SWAP-01 by hand\n"
        "  mended by a deploy of the measure swap\n"
    ) in printed(small(), CONTROLS)


def test_waivers_notes_and_unreachable_hosts_are_told() -> None:
    text = printed(small(), CONTROLS)
    assert (
        "  waiver    in force, until 2027-03-31, j.doe@example.org: its sshd is patched\n            next week\n"
        in text
    )
    assert "  note  waivers.yaml:9: waiver of SPK-UV-01 on x*: fits no host\n" in text
    assert "spark3  unreachable\n  why       ssh: connect to host 10.0.0.9 port 22: No route to host\n" in text
    assert text.endswith("4 hosts, 21 verdicts: 10 pass, 3 fail, 1 waived, 1 not-applicable, 1 error, 5\nunreachable\n")


def test_what_several_hosts_have_alike_is_told_once() -> None:
    fails = run({f"spark{n}": [Status.FAIL, *[Status.PASS] * 4] for n in range(1, 31)})
    text = printed(fails, CONTROLS)
    assert text.count("SPK-SWAP-01  fail") == 1
    assert "  on        spark1, spark2, spark3, spark4," in text
    assert "and 18 more" in text


def test_a_host_that_answers_garbage_is_told_once() -> None:
    made = run({"spark1": [Status.ERROR] * 5})
    text = printed(replace(made, hosts=(HostRun("spark1", None, "its answer is no JSON"),)), CONTROLS)
    assert text.count("error  ") == 0
    assert "spark1  no evidence\n  why       its answer is no JSON\n" in text


def test_many_hosts_that_are_fine_take_one_line() -> None:
    fleet: dict[str, Any] = {f"spark{n}": [Status.PASS] * 5 for n in range(1, 200)}
    fleet["spark200"] = [Status.FAIL, *[Status.PASS] * 4]
    text = printed(run(fleet), CONTROLS)
    assert len(text.splitlines()) < 30
    assert "Nothing to say about 199 other hosts: spark1, spark2," in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_it_keeps_to_the_width(width: int) -> None:
    for made in (small(), CONTROLS), (hostile(), HOSTILE_CONTROLS), large(30, 60):
        for line in printed(*made, width=width).splitlines():
            assert cell_len(line) <= width


def test_a_narrow_terminal_has_every_control() -> None:
    made, controls = large(4, 60)
    rows = [line for line in printed(made, controls, width=40).splitlines() if line.startswith("spark4")]
    assert sum(len(row.removeprefix("spark4").replace(" ", "")) for row in rows if re.search(r"[.F]", row)) == 60


def test_nothing_hostile_reaches_the_terminal() -> None:
    text = printed(hostile(), HOSTILE_CONTROLS)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert r"\x1b[2J" in text
    coloured = printed(hostile(), HOSTILE_CONTROLS, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text


def test_colour_says_nothing_that_letters_do_not() -> None:
    bare = printed(small(), CONTROLS, color_system=None)
    assert bare == printed(small(), CONTROLS)
    assert "F fails  E no evidence  U unreachable  w waived  - not applicable  . passes" in bare


def test_a_control_that_exists_no_more_is_named() -> None:
    assert "(this control exists no more)" in printed(small(), CONTROLS[1:])


def test_a_run_without_anything_is_no_error() -> None:
    assert "0 hosts, 0 verdicts: none" in printed(run({}), CONTROLS)


def test_a_verdict_of_a_host_that_the_run_does_not_name_is_there() -> None:
    made = run({}, verdicts=(verdict("SPK-SWAP-01", "ghost", Status.FAIL),))
    assert "ghost    F" in printed(made, CONTROLS)


def test_long_text_is_cut_and_says_so() -> None:
    lines = shortened("x" * 1_000_000)
    assert lines == ["x" * 1200, "(cut here: 998800 more characters are in the JSON report)"]
    assert shortened("a\n" * 20)[-1] == "(cut here: 16 more characters are in the JSON report)"
    assert shortened("a\r\nb\tc\n") == ["a", "b    c"]


@UNTIMED
@given(st.text(), st.integers(1, 30))
def test_wrapping_loses_spaces_only(text: str, width: int) -> None:
    line = visible(text)
    parts = list(wrapped(line, width))
    assert "".join(parts).replace(" ", "") == line.replace(" ", "")
    assert all(cell_len(part) <= max(width, 2) for part in parts)


@UNTIMED
@given(st.text(st.characters(exclude_categories=[])))
def test_what_is_visible_is_printable(text: str) -> None:
    assert visible(text).isprintable()
    assert visible_lines(text).replace("\n", "").isprintable()
