"""Puts the measures into the wheel, below the package. docs/adr/0016-one-wheel.md

Not `force-include` of pyproject.toml: an editable install would get copies of them, and import those.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PARTS = ("deploy.py", "docs", "files", "inventories/example.yaml", "tasks")


class Measures(BuildHookInterface[Any]):
    """`tasks/` as `sparkfleet/measures/tasks/`, and so on. What runs on hosts is put at the top by `sources`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """hatchling calls this. `version`: "standard" or "editable"."""
        if version == "standard":
            build_data["force_include"] |= {part: f"sparkfleet/measures/{part}" for part in PARTS}
