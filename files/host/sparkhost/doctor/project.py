"""What is wrong in the sources of a project."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sparkhost.doctor.finding import Finding
from sparkhost.doctor.venv import is_venv, text_of

ENDINGS = (".py", ".yaml", ".yml", ".json", ".toml", ".sh")
SKIPPED = {".git", "node_modules", "__pycache__", "site-packages"}
MOST_FILES = 5000
# As an argument, a default, a key of a configuration, or an option: not where a text only names it.
ASKED = re.compile(r"""attn_implementation["']?(?:\s*:[^=]*)?[\s=:]+["']?flash_attention_2""")
LARGEST = 1 << 20


def sources(directory: Path) -> Iterator[Path]:
    """Text files of a project, not those of its venvs; bounded, as it may be a home directory."""
    left = MOST_FILES
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(
            name for name in directories if name not in SKIPPED and not is_venv(Path(parent, name))
        )  # fmt: skip
        for name in sorted(names):
            if name.endswith(ENDINGS):
                left -= 1
                if left < 0:
                    return
                yield Path(parent, name)


def look(directory: Path) -> Iterator[Finding]:
    """Where flash_attention_2 is asked for: one finding a file."""
    for path in sources(directory):
        for number, line in enumerate(text_of(path, LARGEST).splitlines(), 1):
            if ASKED.search(line.split("#", 1)[0]):
                yield Finding(
                    "flash-attention-2",
                    "warning",
                    f"{path}:{number}",
                    line.strip(),
                    "transformers then wants the package flash-attn, which does not work on a GB10",
                    'attn_implementation="sdpa"; with open-instruct --attn_implementation sdpa',
                )
                break
