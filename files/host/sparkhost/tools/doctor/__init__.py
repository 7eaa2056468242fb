"""`spark-doctor`: finds what goes wrong with CUDA stacks and training runs on a Spark, and says what to do.

It looks and never runs anything that it looks at: a venv may be somebody else's.

* `finding`: what is told; `elf`, `venv`: how files and distributions are read;
* `stack`: a virtual environment; `missing`: its libraries; `ptxas`: the assembler that Triton takes from it;
* `project`: a directory of sources; `indexes`: where it takes packages from;
* `process`: a running process; `host`, `nvidia`: this machine; `text`: a pasted error;
* `cli`: the command.
"""
