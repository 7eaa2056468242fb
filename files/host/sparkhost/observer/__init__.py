"""The observer: sees what the watchdog must not act on, and warns of it, each time with what to do.

A unit of its own beside the watchdog's: it reads the kernel's log, asks systemd, walks cgroups, and
may hang or be killed without the watchdog losing anything. It ends nothing and changes nothing.

Beside that it records what was so each second, in a thread (`recorder`) and a file of fixed size (`ring`)
that outlives a power cut; `samples` prints it. `spark-why --last-boot` reads it.

`kernel_log` counts the driver's lines, `memory` does the sums, `restarts` counts starts, `orphans`
judges processes, `alarms` says what has lasted long enough, `warnings` in which words: all of them
pure. `look` reads the host,
`main` is the loop, and `told` is how others read what it wrote (spark-top, spark-why, metrics).
"""
