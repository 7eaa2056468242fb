"""A site's own project: its fleet file, its deploy, and its own measures beside ours. docs/site.md, ADR 17.

my-lab/
    pyproject.toml      [tool.sparkfleet], and which sparkfleet
    fleet.yaml
    deploy.py           plain pyinfra; calls `all_measures()`
    settings/NAME.py    keys of a measure of the site's in the fleet file
    controls/NAME.py    how the audit looks at it
"""

from sparkfleet.site.measures import use
from sparkfleet.site.project import Project, chosen_fleet_file, project_in

__all__ = ["Project", "chosen_fleet_file", "project_in", "use"]
