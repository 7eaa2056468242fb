"""`sparkfleet deploy` and `sparkfleet drift`: pyinfra's run, with an outcome for every host and exit codes that hold.

pyinfra does the work; it is started as its users start it. Nothing here imports it, nor `tasks/`.
"""

from sparkfleet.deploy.command import add_arguments

__all__ = ["add_arguments"]
