"""The settings of the measure tools."""

from __future__ import annotations

from pydantic import Field

from sparkfleet.settings.base import Measure


class ToolsSettings(Measure):
    """Commands for people who train: spark-estimate, spark-profile, spark-doctor, spark-field-report; and spark."""

    recipes: bool = Field(
        default=True,
        description="Whether recipes for spark-profile, presets and the open-instruct template are installed as well, "
        "in /opt/sparkfleet/share.",
    )
