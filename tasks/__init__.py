"""The measures: one module each, `apply(settings)` and `remove(settings)`, which return resources of sparkhost.

They change nothing by themselves: `tasks.lib.converge.deploy` does for all of a fleet, `sparkfleet.operations` for one
measure in anybody's deploy.
"""
