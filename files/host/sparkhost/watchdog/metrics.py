"""What the textfile for Prometheus' node exporter has beside the watchdog's counters: slice, GPUs' clocks, observer.

Read by the process that tells, never by the one that decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sparkhost.base.gpu_sample import PATH
from sparkhost.observer import told

SLICE = Path("/sys/fs/cgroup/training.slice")
SAMPLE = Path(PATH)
OBSERVED = told.PATH
Metric = tuple[str, str, str, Sequence[tuple[str, object]]]
"""Name, type, help, and values by label."""


def text(metrics: Iterable[Metric]) -> str:
    """The exposition format 0.0.4; a metric without values is left out."""
    parts = []
    for name, kind, words, values in metrics:
        if values:
            parts += [f"# HELP {name} {words}\n", f"# TYPE {name} {kind}\n"]
            parts += [f"{name}{label} {value}\n" for label, value in values]
    return "".join(parts)


def of_slice(cgroup: Path | None = None) -> Iterator[Metric]:
    """training.slice, where it has a cgroup: what it holds, what it may, how many jobs, how often its cap killed."""
    root = cgroup or SLICE
    try:
        current = int((root / "memory.current").read_text())
        most = (root / "memory.max").read_text().strip()
        events = dict(line.split() for line in (root / "memory.events").read_text().splitlines())
        jobs = sum(1 for _ in root.glob("spark-job-*.service"))
    except (OSError, ValueError):
        return
    yield "sparkfleet_slice_memory_bytes", "gauge", "Memory of training.slice", [("", current)]
    if most.isdecimal():
        yield "sparkfleet_slice_memory_max_bytes", "gauge", "Cap of training.slice", [("", most)]
    yield "sparkfleet_slice_oom_kills_total", "counter", "Kills in training.slice", [("", events.get("oom_kill", 0))]
    yield "sparkfleet_slice_jobs", "gauge", "Jobs in training.slice", [("", jobs)]


HEAT = (
    ("temperature", "temperature_celsius", "gauge", "Temperature of the GPU"),
    ("hottest", "temperature_highest_celsius", "gauge", "The highest since the host was started"),
    ("slowed", "thermal_slowdown_seconds_total", "counter", "Time in which the clock was held down for heat"),
    ("low", "clock_low_seconds", "gauge", "For how long it has been busy at a low clock"),
    ("reasons", "clocks_event_reasons", "gauge", "Bits of why the clock is not higher (NVML)"),
)


def of_gpus(sample: Path | None = None) -> Iterator[Metric]:
    """Clocks of the GPUs whose driver tells them."""
    try:
        devices = json.loads((sample or SAMPLE).read_text())["devices"]
        known = [(index, device) for index, device in enumerate(devices) if type(device.get("clock")) is int]
        now = [(f'{{gpu="{index}"}}', device["clock"]) for index, device in known]
        most = [(f'{{gpu="{index}"}}', device["most"]) for index, device in known if type(device.get("most")) is int]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    yield "sparkfleet_gpu_clock_megahertz", "gauge", "Clock of the streaming multiprocessors", now
    yield "sparkfleet_gpu_clock_max_megahertz", "gauge", "The highest that it can be", most
    for key, name, kind, words in HEAT:
        told_of = [
            (f'{{gpu="{index}"}}', d[key]) for index, d in enumerate(devices) if type(d.get(key)) in (int, float)
        ]
        if told_of:
            yield f"sparkfleet_gpu_{name}", kind, words, told_of


def of_observer(path: str = "") -> Iterator[Metric]:
    """How many warnings of each kind hold, and what was measured; nothing where the observer is silent."""
    seen = told.read(path or OBSERVED)
    if seen.problem:
        return
    counts = [(f'{{kind="{kind}"}}', seen.kinds.count(kind)) for kind in told.KINDS]
    yield "sparkfleet_observer_warnings", "gauge", "Warnings that hold, by kind", counts
    for key, name, kind, words in (
        ("at_once", "at_once_bytes", "gauge", "Memory that can be had without waiting"),
        ("unaccounted", "unaccounted_bytes", "gauge", "Memory that nobody holds"),
        ("driver_refused", "driver_refused_total", "counter", "Out-of-memory lines of the NVIDIA driver"),
    ):
        if key in seen.figures:
            yield f"sparkfleet_observer_{name}", kind, words, [("", seen.figures[key])]
