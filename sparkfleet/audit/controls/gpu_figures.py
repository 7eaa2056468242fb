"""Reads what `nvidia-smi` answered of each GPU."""

from __future__ import annotations

import re
from typing import NamedTuple

from sparkfleet.audit.controls.kit import malformed
from sparkfleet.audit.model import Evidence

OBSERVATION = "gpu_figures"
UNKNOWN = r"\[[^\]]*\]|N/A"
"""What nvidia-smi prints where a GPU does not tell: `[N/A]`, `[Not Supported]`."""


class Gpu(NamedTuple):
    """A GPU as it was at that moment; None for what it does not tell."""

    number: int
    degrees: int | None
    clock: int | None
    highest: int | None
    percent: int | None
    reasons: int | None
    """A bit for each reason why its clock is not higher (nvmlClocksEventReasons)."""


def gpus(evidence: Evidence) -> list[Gpu]:
    """All GPUs; none on a host without one. Raises NoEvidence where the answer is something else."""
    text = evidence.text(OBSERVATION).strip()
    if text == "no GPU":
        return []
    found = [_gpu(line) for line in text.splitlines()]
    if not found or None in found:
        raise malformed(evidence, OBSERVATION)
    return [gpu for gpu in found if gpu]


def _gpu(line: str) -> Gpu | None:
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(Gpu._fields) or not words[0].isdecimal():
        return None
    numbers: list[int | None] = []
    for word in words[1:]:
        if re.fullmatch(UNKNOWN, word):
            numbers.append(None)
        elif re.fullmatch(r"\d{1,9}|0x[0-9a-fA-F]{1,16}", word):
            numbers.append(int(word, 0))
        else:
            return None
    return Gpu(int(words[0]), *numbers)
