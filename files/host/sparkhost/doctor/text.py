"""Known errors in a pasted text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sparkhost.doctor.finding import Finding, Weight


class Known(NamedTuple):
    """An error that people paste, and what is behind it."""

    id: str
    weight: Weight
    pattern: re.Pattern[str]
    why: str
    fix: str


def known(id_: str, weight: Weight, pattern: str, why: str, fix: str) -> Known:
    return Known(id_, weight, re.compile(pattern, re.IGNORECASE), why, fix)


ERRORS = (
    known(
        "cudart-12",
        "broken",
        r"libcudart[\w.-]*\.so\.12[^\n]*cannot open shared object",
        "something was built for CUDA 12; a Spark has CUDA 13",
        "spark-doctor VENV names the file and its distribution; then reinstall that as a cu130 build",
    ),
    known(
        "ptxas-sm121a",
        "broken",
        r"sm_121a?'? is not defined for option 'gpu-name'|ptxas fatal[^\n]*sm_121a?",
        "Triton runs a ptxas that does not know a GB10: the one bundled up to 3.5, where no variable names another",
        "export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas (since Triton 3.6 TRITON_PTXAS_BLACKWELL_PATH); "
        "spark-doctor VENV says which one is used",
    ),
    known(
        "flash-attn",
        "broken",
        r"FlashAttention2? has been toggled on|No module named 'flash_attn|flash_attn[^\n]*undefined symbol",
        "flash_attention_2 is asked for, and the package flash-attn is missing or does not load; it is not needed",
        'attn_implementation="sdpa"; with open-instruct --attn_implementation sdpa or --use_flash_attn false',
    ),
    known(
        "sm121-warning",
        "note",
        r"is of cuda capability 12\.1|capability supported by this version of PyTorch is",
        "harmless: sm_120 and sm_121 are binary compatible, and the build has sm_120",
        "nothing to do; torch 2.11 and later do not say it",
    ),
    known(
        "torch-cpu",
        "broken",
        r"Torch not compiled with CUDA enabled",
        "torch is PyPI's CPU build, or another package's pin has replaced the CUDA build by it",
        "spark-doctor VENV; install torch and vllm in one resolution: torch >= 2.11, or the cu130 index",
    ),
    known(
        "no-kernel",
        "broken",
        r"no kernel image is available for execution on the device",
        "an extension was built without code for sm_120 or sm_121",
        'build it anew with TORCH_CUDA_ARCH_LIST="12.1a", CUDA 13 and --no-build-isolation',
    ),
    known(
        "driver-mismatch",
        "broken",
        r"Driver/library version mismatch|CUDA driver version is insufficient",
        "the loaded driver and its libraries, or the toolkit, are of different releases",
        "reboot after a driver's update; spark-doctor names both versions",
    ),
    known(
        "python-headers",
        "broken",
        r"Python\.h: No such file or directory",
        "Triton and vLLM compile small programs when they run, and need Python's headers",
        "sudo apt install python3.12-dev",
    ),
    known(
        "vllm-free-memory",
        "broken",
        r"Free memory on device[^\n]*less than desired GPU memory utilization|No available memory for the cache blocks",
        "vLLM asks CUDA what is free, which leaves out page cache; before 0.24 it miscounts unified memory as well",
        "spark-run --drop-cache -- ..., and a lower --gpu-memory-utilization (0.7 at most)",
    ),
    known(
        "vllm-idle",
        "warning",
        r"Capturing CUDA graphs?[^\n]*\b0%|Capturing cudagraphs? for decoding",
        "if it goes no further, vLLM hangs while it captures CUDA graphs: reported on a GB10",
        "--enforce-eager (in open-instruct --vllm_enforce_eager)",
    ),
    known(
        "out-of-memory",
        "broken",
        r"CUDA out of memory|torch\.OutOfMemoryError|CUDA error: out of memory|cudaErrorMemoryAllocation",
        "the batch does not fit; on a Spark that is the whole host's memory",
        "spark-estimate and spark-profile say which batch does; spark-top who else holds memory",
    ),
    known(
        "killed",
        "broken",
        r"^Killed$|exit code (?:-9|137)\b|SIGKILL|Out of memory: Killed process",
        "something ended it because memory ran out: its cap, the kernel, or the watchdog",
        "spark-why says whether it was the watchdog; spark-run says how a job ended",
    ),
    known(
        "nv-no-memory",
        "note",
        r"NV_ERR_NO_MEMORY",
        "lines of the driver in the kernel's log; reported to come and go without anything being wrong",
        "nothing by itself: look at MemAvailable (spark-top)",
    ),
    known(
        "scope-setting",
        "broken",
        r"Unknown assignment: OOMScoreAdjust",
        "systemd-run --scope takes no such setting",
        "spark-run -- COMMAND",
    ),
)


def look(text: str, where: str) -> Iterator[Finding]:
    """A finding for each known error in a text, with the line that shows it. `where`: as findings name the text."""
    lines = text.splitlines()
    for error in ERRORS:
        line = next((line for line in lines if error.pattern.search(line.strip())), None)
        if line is not None:
            yield Finding(error.id, error.weight, where, line.strip(), error.why, error.fix)
