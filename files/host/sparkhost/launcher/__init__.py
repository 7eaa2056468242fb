"""The launcher: `spark-run` starts a job of a training user in `training.slice`, `spark-top` says who holds the memory.

Who is who (docs/adr/0007-launcher.md):

* the *launcher* (`run`) is the user's process: it holds the terminal, and knows argv, environment and limits;
* the *helper* (`helper`) is root: it starts, and stops, units of the user who asks, and drops the page cache;
* the *stub* (`stub`) is the unit's main process, as the user: it gets everything else from the launcher over a socket
  that the helper only passes on, and runs the command.

Installed under /opt/sparkfleet/lib/launcher, run with `python3 -IS`: nothing but the standard library, few imports.
"""
