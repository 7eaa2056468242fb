"""/etc/sparkfleet/launcher.json: what the deploy decided for this host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.base.units import GIB

PATH = Path("/etc/sparkfleet/launcher.json")


class BadConfig(Exception):
    """The file cannot be used. One line, with the file and the key."""


class Config(NamedTuple):
    """Sizes in bytes, times in seconds. Those that are shares are of a host of 120 GiB; the file has this host's."""

    group: str = "training"
    """The Unix group whose members may start jobs."""
    memory_max: int = 100 * GIB
    """MemoryMax of training.slice: no job gets more."""
    reserve: int = 16 * GIB
    """What jobs leave to the host: the threshold below which the watchdog acts."""
    job_memory_default: int | None = None
    """What a job promises that names no size; None: all of the slice's."""
    admission: str = "warn"
    """`warn`, `refuse` or `wait`: what becomes of a job whose promise does not fit."""
    over_promise: str = "first"
    """`first`, `end` or `tell`: what the watchdog does with a job that holds more than it promised."""
    tasks_max: int = 16384
    """TasksMax of one job."""
    jobs_max: int = 32
    """Jobs that one user may have at a time."""
    memlock: int | None = None
    """LimitMEMLOCK of a job; None: infinity."""
    need: int = 80 * GIB
    """Memory that should be available before a job starts, where the user names none."""
    preflight: str = "warn"
    """`warn`, `refuse` or `off`: what happens where it is not."""
    drop_cache_every: int = 60
    """Least time between two droppings of the page cache."""
    drop_cache_every_user: int = 600
    """Least time between two of them by one user."""


MAY_BE_NONE = ("memlock", "job_memory_default")
CHOICES = {
    "preflight": ("warn", "refuse", "off"),
    "admission": ("warn", "refuse", "wait"),
    "over_promise": ("first", "end", "tell"),
}


def parse(text: str) -> Config:
    """The settings in a text of JSON.

    Raises:
        BadConfig: not a mapping of known keys to values of the right type.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{PATH}: is not JSON: deploy again") from error
    if not isinstance(raw, dict):
        raise BadConfig(f"{PATH}: expected a mapping: deploy again")
    raw.pop("_", None)  # who manages the file
    known: dict[str, Any] = Config._field_defaults
    for key, value in raw.items():
        if key not in known:
            raise BadConfig(f"{PATH}: {key}: unknown key: deploy again")
        of_text = isinstance(known[key], str)
        fits = isinstance(value, str) if of_text else type(value) is int and value > 0
        if not fits and not (key in MAY_BE_NONE and value is None):
            raise BadConfig(f"{PATH}: {key}: got {value!r}, expected {'text' if of_text else 'a number'}: deploy again")
        if key in CHOICES and value not in CHOICES[key]:
            expected = ", ".join(CHOICES[key])
            raise BadConfig(f"{PATH}: {key}: got {value!r}, expected one of {expected}: deploy again")
    return Config(**raw)


def read() -> Config:
    """The host's settings.

    Raises:
        BadConfig: the file is wrong, or not there: then the measure is not on this host.
    """
    try:
        return parse(PATH.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{PATH}: cannot be read: is the measure training_slice deployed on this host?") from error
