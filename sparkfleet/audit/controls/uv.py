"""uv: the pinned release, for every user, that only root can replace."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.kit import judged, malformed, only_roots
from sparkfleet.audit.model import Aspect, Control, Evidence, Judge, Judgement, Severity
from sparkfleet.settings import HostSettings

NOT_FOUND = 127


def version_of(program: str) -> Judge:
    """The judge of `PROGRAM --version`; that it is not installed is a finding, not a lack of evidence."""

    def judge(evidence: Evidence, settings: HostSettings) -> Judgement:
        name, wanted = f"{program}_version", f"{program} {settings.uv.version}"
        seen = evidence.observations.get(name)
        if seen and seen.rc == NOT_FOUND:
            return judged(False, wanted, f"no {program} in PATH")
        match = re.match(rf"{program} (\d+\.\d+\.\d+)\b", evidence.text(name))
        if not match:
            raise malformed(evidence, name)
        return judged(match[1] == settings.uv.version, wanted, f"{program} {match[1]}")

    return judge


def takes_configuration(evidence: Evidence, settings: HostSettings) -> Judgement:
    """A key that uv does not know stops every command (docs/facts.md, 12)."""
    wanted = "uv accepts its configuration"
    seen = evidence.observations.get("uv_config")
    if seen and seen.rc in (1, 2) and seen.error:
        return judged(False, wanted, seen.error.splitlines()[0])
    if seen and seen.rc == NOT_FOUND:
        return judged(False, wanted, "no uv in PATH")
    if not evidence.text("uv_config").startswith("/"):
        raise malformed(evidence, "uv_config")
    return judged(True, wanted, "it does")


def only_root_replaces(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "uv, uvx and every directory above root's, and writable for root only"
    seen = evidence.observations.get("uv_owner")
    if seen and seen.rc == NOT_FOUND:
        return judged(False, wanted, "no uv or no uvx in PATH")
    return only_roots(evidence, "uv_owner", wanted)


CONTROLS = (
    Control(
        id="SPK-UV-01",
        title="uv is the pinned release",
        severity=Severity.MEDIUM,
        measure="uv",
        aspect=Aspect.RUNNING,
        why="Another uv resolves another stack: what works on one host does not on the next.",
        source="docs/facts.md, 11 and 13",
        manual_fix="unpack uv from its wheel on PyPI, by hash, and link it into /usr/local/bin",
        evidence=("uv_version",),
        judge=version_of("uv"),
    ),
    Control(
        id="SPK-UV-02",
        title="uvx is the pinned release",
        severity=Severity.LOW,
        measure="uv",
        aspect=Aspect.RUNNING,
        why="uvx that is not of the same release as uv runs tools with another cache and other defaults.",
        source="docs/facts.md, 11",
        manual_fix="link uvx of the same wheel into /usr/local/bin",
        evidence=("uvx_version",),
        judge=version_of("uvx"),
    ),
    Control(
        id="SPK-UV-03",
        title="uv accepts its configuration",
        severity=Severity.HIGH,
        measure="uv",
        aspect=Aspect.CONFIGURED,
        why="An unknown key in /etc/uv/uv.toml stops every uv command of every user.",
        source="docs/facts.md, 12",
        manual_fix="run `uv cache dir`, and take the key that it names out of /etc/uv/uv.toml",
        evidence=("uv_config",),
        judge=takes_configuration,
    ),
    Control(
        id="SPK-UV-04",
        title="Only root can replace uv",
        severity=Severity.HIGH,
        measure="uv",
        aspect=Aspect.CONFIGURED,
        why="Everybody runs it, root too: who can replace it, or a directory above it, is root with the next run.",
        source="path_resolution(7)",
        manual_fix="chown root: and chmod go-w what is named",
        evidence=("uv_owner",),
        judge=only_root_replaces,
    ),
)
