"""What this host is doing now: for people who watch the fleet, and for `spark-top --watch`.

`reader` looks, `parts` are what it looks at, `history` is what was kept of the last day, `main` streams
it to a controller over SSH, `screen` shows it on this host's own terminal. Nothing of it runs while
nobody looks: the controller's ssh starts it, with the sources on its standard input, and it ends with
that connection.

How it stays small: a line a second holds only what has changed since the line before. What is read
every second are a few small files; walking the cgroups waits until the processor time spent so far is
below `reader.SHARE` of the time that has passed, so a host with thousands of cgroups is looked at
less often, and not at a higher cost.
"""
