"""`spark-stack smoke`: whether the stack works on this host's GPU. Each step is a process of the stack's own Python.

* `steps`: what is tried, run by the stack's Python, which has torch; this host's own has not;
* `kernel`: the Triton kernel among them, which must be a file of its own;
* `matrix`: starts the steps, judges what they print, and keeps it (pure but for the processes);
* `bench`, `bench_step`: five seconds of it against this host's first result, and what the stack's Python runs for that.
"""
