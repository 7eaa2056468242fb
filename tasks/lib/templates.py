"""Renders the templates under files/ with jinja2."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.lib import ROOT

# StrictUndefined: a misspelt variable is an error here, not an empty value on a host.
_TEMPLATES = Environment(
    loader=FileSystemLoader(ROOT / "files"),
    undefined=StrictUndefined,
    autoescape=False,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """The template `files/<template>` with these values."""
    return _TEMPLATES.get_template(template).render(**values)
