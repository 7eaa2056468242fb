"""Writes what is made from the code: settings, controls, errors, man pages and others. `python -m sparkfleet.docs`"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from sparkfleet import architecture, compatibility, man_pages
from sparkfleet.audit.controls import CONTROLS
from sparkfleet.settings import FleetFile, HostEntry, HostSettings, RolloutSettings, Seconds, Size
from sparkfleet.settings.shares import Sized
from sparkfleet.settings.values import Means
from sparkhost.tools.doctor.rules import RULES

AUDIT = Path(__file__).resolve().parents[1] / "docs" / "audit.md"
DOCTOR = AUDIT.with_name("doctor.md")
COMPATIBILITY = AUDIT.with_name("compatibility.md")
RULES_BEGIN = "<!-- rules: begin; what stands here is generated, and edits are lost -->\n"
RULES_END = "<!-- rules: end -->"
BEGIN, END = "<!-- controls: begin; what stands here is generated, and edits are lost -->\n", "<!-- controls: end -->"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

HEAD = """\
# Settings

Made by `python -m sparkfleet.docs` from `sparkfleet/settings/`; `inventories/example.yaml` shows all of it in use.

A fleet file has settings at three levels: `defaults`, `groups`, and each host's `settings`. A group overrides the
defaults, a later group of a host an earlier one, the host all of them; mappings such as `variables` are joined key by
key. `off`, `yes` and `no` are text. A size is written `16GiB` or `512MiB`, a duration `500ms`, `30s`, `5min` or `2h`.

Where a share is taken, `80%` is that part of the host's memory, and `auto` the part that stands beside the key: each
host works it out, so hosts of 64 and of 128 GB can have the same settings. The memory is what the kernel counts
(MemTotal), rounded to five binary digits, which takes away what firmware and driver keep here more and there less: a
Spark's 119.7 to 121.7 GiB are 120, and 59 to 61 GiB are 60. A deploy shows the figure, with the rule in a comment
beside it, before it is in force (`--dry`).
"""

COMPATIBILITY_HEAD = """\
# What works on a Spark, and how it is started

Made by `python -m sparkfleet.docs` from `sparkfleet/compatibility.py`. It is about a GB10 (sm_121), CUDA 13.0, aarch64.
"measured": run by us, but on other machines, for we have no GB10; "reported": seen on a GB10 by somebody, in the thread
that is named; "source": read in a wheel, a program or its documentation. "installs": we know nobody who ran it there.
As of December 2026; `spark-doctor VENV` says what of it holds for yours.
"""

TIMELINE_HEAD = """\
The expectations are of github.com/natolambert/dgx-spark-setup (2026-01-15), the outcome as of December 2026.
"""

WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Size: "size",
    Seconds: "duration",
    HostSettings: "settings",
    HostEntry: "host",
    RolloutSettings: "settings",
}


def settings_page() -> str:
    """The page, whole."""
    parts = [HEAD, *section("The file", FleetFile), *section("A host", HostEntry), *section("rollout", RolloutSettings)]
    for name, field in HostSettings.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"HostSettings.{name} is no measure")
        parts += section(name, model)
    return "\n".join(parts)


def section(title: str, model: type[BaseModel]) -> Iterator[str]:
    """A heading, what the model is for, and a table with one row a field."""
    hints = typing.get_type_hints(model, include_extras=True)
    purpose = (model.__doc__ or "").strip()
    yield f"## {title}\n\n{purpose}\n"
    yield row(("Key", "Type", "Default", "Meaning"))
    yield row(["---"] * 4)
    for key, field in model.model_fields.items():
        default = "required" if field.is_required() else shown(field.get_default(call_default_factory=True))
        yield row((f"`{key}`", words(hints[key]), default, field.description or ""))
    yield ""


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def words(hint: Any) -> str:
    """A type in words."""
    if hint in WORDS:
        return WORDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        named = [item.words for item in arguments[1:] if isinstance(item, Means | Sized)]
        return named[0] if named else words(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(words(argument) for argument in arguments if argument is not types.NoneType)
    if origin is dict:
        return f"mapping: {words(arguments[0])} to {words(arguments[1])}"
    if origin is list:
        return f"list: {words(arguments[0])}"
    raise TypeError(f"docs/settings.md has no words for {hint}")


def shown(value: Any) -> str:
    """A default as it would be written."""
    match value:
        case None | BaseModel():
            return ""
        case dict() if value:
            return "<br>".join(f"`{key}: {str(item)[:12]}…`" for key, item in value.items())
        case bool():
            return f"`{str(value).lower()}`"
        case _:
            return f"`{value}`"


def between(page: Path, begin: str, end: str, table: Iterable[str]) -> str:
    """A page with a table between its marks."""
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n" + "\n".join(table) + f"\n\n{end}{tail}"


def audit_page() -> str:
    """docs/audit.md with the list of controls."""
    rows = [
        f"| {control.id} | {control.title} | {control.severity} | {control.aspect} | {control.measure or 'none'} |"
        for control in CONTROLS
    ]
    head = ["| id | holds where it passes | severity | aspect | mended by |", "|---|---|---|---|---|"]
    return between(AUDIT, BEGIN, END, [*head, *rows])


def doctor_page() -> str:
    """docs/doctor.md with the errors that are known in texts."""
    rows = [row((f"`{rule.id}`", rule.weight, rule.why, rule.fix, rule.source)) for rule in RULES]
    return between(DOCTOR, RULES_BEGIN, RULES_END, [row(("id", "", "why", "fix", "source")), row(["---"] * 5), *rows])


def architecture_page() -> str:
    """docs/architecture.md with its picture."""
    return between(architecture.PAGE, architecture.BEGIN, architecture.END, architecture.picture())


def compatibility_page() -> str:
    """docs/compatibility.md, whole."""
    packages = [
        row((item.name, item.state, item.version, item.how, item.known, item.source)) for item in compatibility.PACKAGES
    ]
    flags = [row((item.program, f"`{item.value}`", item.why, item.known, item.source)) for item in compatibility.FLAGS]
    parts = [COMPATIBILITY_HEAD, "## Packages\n"]
    parts += [row(("", "state", "version", "how", "known by", "source")), row(["---"] * 6), *packages]
    awaited = [row((item.what, item.expected, item.came, item.how, item.source)) for item in compatibility.TIMELINE]
    parts += ["\n## What was expected in January 2026, and what came\n", TIMELINE_HEAD]
    parts += [row(("what", "expected", "", "how it is", "source")), row(["---"] * 5), *awaited]
    parts += ["\n## Launch flags for unified memory\n"]
    parts += [row(("program", "flag", "why", "known by", "source")), row(["---"] * 5), *flags]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    architecture.PAGE.write_text(architecture_page(), encoding="utf-8")
    COMPATIBILITY.write_text(compatibility_page(), encoding="utf-8")
    DOCTOR.write_text(doctor_page(), encoding="utf-8")
    PAGE.write_text(settings_page(), encoding="utf-8")
    AUDIT.write_text(audit_page(), encoding="utf-8")
    man_pages.write()
