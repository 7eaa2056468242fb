"""What is wrong in the sources of a project."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sparkhost.tools.doctor import indexes
from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.venv import is_venv, text_of

ENDINGS = (".py", ".yaml", ".yml", ".json", ".toml", ".sh")
SKIPPED = {".git", "node_modules", "__pycache__", "site-packages"}
MOST_FILES = 5000
# Each as an argument, a default, a key of a configuration, or an option: not where a text only names it. Transformers
# and open-instruct (flash_2); its former spelling; LLaMA-Factory; Axolotl, whose key is also a word of others' code.
ASKED = re.compile(
    r"""attn_implementation["']?(?:\s*:[^=]*)?[\s=:]+["']?flash_(?:attention_)?2\b"""
    r"""|\buse_flash_attention_2["']?(?:\s*:\s*bool)?\s*[:=]\s*["']?[Tt]rue\b"""
    r"""|\bflash_attn["']?\s*(?:[:=]|\s)\s*["']?fa2\b"""
)
ASKED_AXOLOTL = re.compile(r"""^\s*["']?flash_attention["']?\s*:\s*["']?(?:true|yes|on)\b""", re.IGNORECASE)
CONFIGURATIONS = (".yaml", ".yml", ".json")
LARGEST = 1 << 20


def sources(directory: Path) -> Iterator[Path]:
    """Text files of a project, not those of its venvs; bounded, as it may be a home directory."""
    left = MOST_FILES
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(
            name for name in directories if name not in SKIPPED and not is_venv(Path(parent, name))
        )  # fmt: skip
        for name in sorted(names):
            if name.endswith(ENDINGS) or indexes.is_read(name):
                left -= 1
                if left < 0:
                    return
                yield Path(parent, name)


def asks(line: str, name: str) -> bool:
    """Whether a line of a file of that name asks for flash attention 2."""
    code = line.split("#", 1)[0]
    return bool(ASKED.search(code) or (name.endswith(CONFIGURATIONS) and ASKED_AXOLOTL.search(code)))


def look(directory: Path) -> Iterator[Finding]:
    """Where flash attention 2 is asked for, and where packages of CUDA 12 come from: one finding a file and kind."""
    for path in sources(directory):
        if indexes.is_read(path.name):
            yield from indexes.look(path)
        for number, line in enumerate(text_of(path, LARGEST).splitlines(), 1):
            if asks(line, path.name):
                yield Finding(
                    "flash-attention-2",
                    "warning",
                    f"{path}:{number}",
                    line.strip(),
                    "that wants the package flash-attn, which does not work on a GB10",
                    'attn_implementation="sdpa"; Axolotl sdp_attention: true, LLaMA-Factory flash_attn: sdpa, '
                    "open-instruct --attn_implementation torch",
                )
                break
