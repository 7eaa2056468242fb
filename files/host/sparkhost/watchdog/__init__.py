"""The memory watchdog: ends the right unit of work before the host freezes, and tells its owner why.

`decide` is pure: samples and a policy in, an action out. `work` makes units of work of a table of processes, also
pure. Everything that touches the host is at the edge: `meminfo`, `process`, `gpu` and `cgroup` look, `act` signals,
`loop` holds it together and never blocks, `teller` is a process of its own that writes and may fall behind.
"""
