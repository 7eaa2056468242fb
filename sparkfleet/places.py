"""Where `tasks/`, `files/` and `deploy.py` are: beside this package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
IN_A_WHEEL = PACKAGE / "measures"
"""Only a wheel has it: `hatch_build.py`."""
ROOT = IN_A_WHEEL if IN_A_WHEEL.is_dir() else PACKAGE.parent
FILES = ROOT / "files"
