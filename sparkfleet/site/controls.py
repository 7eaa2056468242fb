"""A site's own controls: `CONTROLS`, and in `LOOKS` and `ROOT_LOOKS` the commands whose output they judge."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.model import Control
from sparkfleet.audit.probe import program
from sparkfleet.settings import HostSettings
from sparkfleet.settings.problems import show
from sparkfleet.site.measures import loaded, wrong

ID = re.compile(r"(?!SPK-)[A-Z][A-Z0-9]{1,7}-[A-Z0-9]{2,12}-[0-9]{2}")


def take_controls(path: Path) -> None:
    """Adds the controls and looks of a file to ours. Raises FleetError."""
    module = loaded(path)
    for part, name in (("user", "LOOKS"), ("root", "ROOT_LOOKS")):
        program.SITE_LOOKS[part].update(looks(path, name, getattr(module, name, {})))
    found = getattr(module, "CONTROLS", ())
    if not isinstance(found, Sequence) or not found or not all(isinstance(one, Control) for one in found):
        raise wrong(path, "CONTROLS: expected at least one sparkfleet.audit.model.Control")
    for control in found:
        check(path, control)
        CONTROLS.append(control)


def looks(path: Path, name: str, value: Any) -> dict[str, list[str]]:
    """Commands by the name of what they see. Raises FleetError."""
    if not isinstance(value, Mapping):
        raise wrong(path, f"{name}: expected a mapping of names to commands")
    for key, words in value.items():
        if not isinstance(key, str) or not re.fullmatch(rf"{path.stem}(_[a-z0-9_]+)?", key):
            raise wrong(path, f"{name}: got {show(key)}, expected {path.stem} or a name that begins with {path.stem}_")
        if isinstance(words, str) or not words or not all(isinstance(word, str) for word in words):
            raise wrong(path, f'{name}: {key}: expected a command word by word, as in ("cat", "/etc/motd")')
    return {key: list(words) for key, words in value.items()}


def check(path: Path, control: Control) -> None:
    """Raises FleetError."""
    if not ID.fullmatch(control.id):
        raise wrong(path, f"got the id {show(control.id)}, expected one such as LAB-MOTD-01; SPK- is sparkfleet's own")
    if any(control.id == other.id for other in CONTROLS):
        raise wrong(path, f"the id {control.id} is there twice")
    if control.measure and control.measure not in HostSettings.model_fields:
        raise wrong(path, f"{control.id}: there is no measure {show(control.measure)}")
