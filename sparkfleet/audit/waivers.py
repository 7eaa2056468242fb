"""Waivers: failing controls that somebody answers for, on some hosts, until a date. Never forever, never silently."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path as FilePath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from sparkfleet.audit.model import Status, Verdict, WaiverNote
from sparkfleet.audit.text import listed
from sparkfleet.settings.base import Strict
from sparkfleet.settings.explain import problems_of, suggestion
from sparkfleet.settings.problems import FleetError, Path, Problem, show, wrong
from sparkfleet.settings.values import FormatVersion, Means
from sparkfleet.settings.yaml_file import Document, read_yaml

EXAMPLE = "inventories/example.waivers.yaml"
IN_FORCE, EXPIRED, STALE = "in force", "expired", "stale"
COVERED = "covered"
"""An expired waiver where another one is in force; in notes only."""


def _one_line(value: str) -> str:
    # YAML's folded text ends with a line feed, and may have more of them.
    text = " ".join(value.split())
    if not text or not text.isprintable():
        raise wrong("text that says something")
    return text


def _glob(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._*?\[\]!-]+", value):
        raise wrong("a host's name, or a pattern such as spark* (`*`, `?` and `[12]` are understood)")
    return value


def _date(value: Any) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass  # such as 2027-02-30
    raise wrong("a day such as 2027-03-31")


Line = Annotated[str, AfterValidator(_one_line), Means("text")]
HostGlob = Annotated[str, AfterValidator(_glob), Means("pattern of host names")]
Day = Annotated[date, BeforeValidator(_date), Means("day")]


class WaiverEntry(Strict):
    """A waiver as the file declares it. Nothing has a default."""

    control: Line = Field(description="The control's id.")
    hosts: HostGlob = Field(description="The hosts' names: a pattern. `*` also waives a control of the whole fleet.")
    reason: Line = Field(description="Why the control may fail there.")
    owner: Line = Field(description="Who answers for it.")
    expires: Day = Field(description="The last day on which it is in force.")


class WaiverFile(Strict):
    """The whole file."""

    version: FormatVersion = Field(default=1, description="The version of this format.")
    # `waivers:` with nothing but comments below it is a file whose last waiver was taken out.
    waivers: Annotated[list[WaiverEntry], BeforeValidator(lambda value: [] if value is None else value)]


@dataclass(frozen=True)
class Waiver:
    """A control that may fail on some hosts until a day, inclusive."""

    control: str
    hosts: str
    """A pattern of host names (`fnmatch`, case-sensitive)."""
    reason: str
    owner: str
    expires: date
    where: str
    """File and line."""

    def fits(self, verdict: Verdict) -> bool:
        return verdict.control == self.control and fnmatchcase(verdict.host, self.hosts)

    def note(self, state: str) -> WaiverNote:
        return WaiverNote(self.reason, self.owner, self.expires, state)

    def in_force(self, today: date) -> bool:
        return today <= self.expires


def load(path: FilePath, control_ids: Collection[str]) -> tuple[Waiver, ...]:
    """Reads and checks a file of waivers. `control_ids`: those of all controls, also of ones that are not selected.

    Raises:
        FleetError: every mistake in the file, one line each.
    """
    document = read_yaml(path, example=EXAMPLE)
    problems = list(document.problems)
    seen = {problem.path for problem in problems}
    try:
        WaiverFile.model_validate(document.value)
    except ValidationError as error:
        problems += [p for p in problems_of(error, WaiverFile) if p.path not in seen]
    waivers = tuple(_waivers(document, control_ids, problems))
    if problems:
        raise FleetError(list(document.complaints(problems)))
    return waivers


def _waivers(document: Document, control_ids: Collection[str], problems: list[Problem]) -> Iterator[Waiver]:
    """The entries that are right in themselves; what is wrong with their control, or a second one, is a problem."""
    value = document.value
    entries = value.get("waivers") if isinstance(value, dict) else None
    first: dict[tuple[str, str], Path] = {}
    for index, raw in enumerate(entries if isinstance(entries, list) else ()):
        at: Path = ("waivers", index)
        control = raw.get("control") if isinstance(raw, dict) else None
        if isinstance(control, str) and control not in control_ids:
            problems.append(Problem((*at, "control"), f"got {show(control)}, {_remedy(control, control_ids)}"))
        try:
            entry = WaiverEntry.model_validate(raw)
        except ValidationError:
            continue
        before = first.setdefault((entry.control, entry.hosts), at)
        if before is not at:
            text = f"{entry.control} on {show(entry.hosts)} is waived a second time, first on line "
            problems.append(Problem(at, f"{text}{document.line(before)}: keep one of them"))
        yield Waiver(**dict(entry), where=f"{document.file}:{document.line(at)}")


def _remedy(control: str, control_ids: Collection[str]) -> str:
    near = suggestion(control, control_ids)
    return near if near.startswith("did you mean") else "which is no control (docs/audit.md lists them)"


def apply(
    verdicts: Sequence[Verdict], waivers: Sequence[Waiver], today: date
) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """The verdicts with the waivers on them, and a note for each waiver that is not simply in force.

    A failing control becomes waived while a waiver that fits it is in force, and stays failing with a note where all
    have expired. A passing one keeps its status, and its waiver is stale. What was not seen is never waived.
    Verdicts of an earlier call are judged anew, as of `today`.
    """
    by_control: dict[str, list[Waiver]] = {}
    for waiver in waivers:
        by_control.setdefault(waiver.control, []).append(waiver)
    outcome: dict[Waiver, dict[str, list[str]]] = {waiver: {} for waiver in waivers}
    result = []
    for verdict in verdicts:
        bare = _bare(verdict)
        fitting = [waiver for waiver in by_control.get(bare.control, ()) if waiver.fits(bare)]
        # The one that lasts longest speaks for all of them.
        last = max(fitting, key=lambda waiver: waiver.expires, default=None)
        for waiver in fitting:
            what = _outcome(bare, waiver, today)
            if what == EXPIRED and last and last.in_force(today):
                what = COVERED
            outcome[waiver].setdefault(what, []).append(bare.host or "the fleet")
        result.append(_applied(bare, last, today) if last else bare)
    notes = [_note(waiver, what, hosts) for waiver, seen in outcome.items() for what, hosts in _told(seen)]
    return tuple(result), tuple(notes)


def any_expired(verdicts: Sequence[Verdict]) -> bool:
    """Whether a control fails under a waiver that has expired: exit code 4."""
    return any(v.waiver is not None and v.waiver.state == EXPIRED for v in verdicts)


def _bare(verdict: Verdict) -> Verdict:
    if verdict.status is Status.WAIVED:
        return replace(verdict, status=Status.FAIL, waiver=None)
    return verdict if verdict.waiver is None else replace(verdict, waiver=None)


def _outcome(verdict: Verdict, waiver: Waiver, today: date) -> str:
    match verdict.status:
        case Status.FAIL:
            return IN_FORCE if waiver.in_force(today) else EXPIRED
        case Status.PASS:
            return STALE
        case other:
            return str(other)


def _applied(verdict: Verdict, waiver: Waiver, today: date) -> Verdict:
    match _outcome(verdict, waiver, today):
        case "in force":
            return replace(verdict, status=Status.WAIVED, waiver=waiver.note(IN_FORCE))
        case "expired" | "stale" as state:
            return replace(verdict, waiver=waiver.note(state))
        case _:
            return verdict


def _told(seen: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """What is worth a note: all but being in force, which the verdicts say; nothing at all is worth one too."""
    return [("", [])] if not seen else [(what, hosts) for what, hosts in seen.items() if what != IN_FORCE]


def _note(waiver: Waiver, what: str, hosts: list[str]) -> str:
    names = listed(hosts)
    said = {
        "": "it fits no host of this run: correct its pattern, or take it out",
        EXPIRED: f"it has expired, and the control still fails on {names}: mend it, or renew the waiver",
        COVERED: f"it has expired, and another waiver covers {names}: take it out",
        STALE: f"it is stale, the control passes on {names}: take it out",
        Status.NOT_APPLICABLE: f"the control is not applicable on {names}: take it out there",
        Status.ERROR: f"nothing is waived on {names}, where the control has no evidence",
        Status.UNREACHABLE: f"nothing is waived on {names}, which could not be reached",
    }[what]
    return f"{waiver.where}: waiver of {waiver.control} on {waiver.hosts} ({waiver.owner}, {waiver.expires}): {said}"
