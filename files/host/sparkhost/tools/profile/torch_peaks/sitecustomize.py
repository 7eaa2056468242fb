"""Runs at the start of every Python of a step (sparkhost.tools.profile.torch_peaks). Standard library, any Python 3.8.

It must not change the step: PyTorch is only asked if the step has imported it and used the GPU, and another
sitecustomize that this one hides is run.
"""

import atexit
import importlib.machinery
import importlib.util
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - at the start of every process


def write() -> None:
    """Both peaks, where this process has used the GPU through PyTorch."""
    directory = os.environ.get("SPARK_PROFILE_PEAKS")
    torch = sys.modules.get("torch")
    if not directory or torch is None:
        return
    try:
        if not torch.cuda.is_initialized():
            return
        peaks = {"in_use": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
        with open(os.path.join(directory, f"{os.getpid()}.json"), "w") as stream:  # noqa: PTH118, PTH123
            json.dump(peaks, stream)
    except Exception:  # whatever PyTorch does at its end, the step's own result stands
        return


def run_the_other() -> None:
    """What Python would have imported without this file."""
    others = [path for path in sys.path if os.path.abspath(path or ".") != HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


atexit.register(write)
run_the_other()
