"""What is known of programs on a GB10 with CUDA 13: docs/compatibility.md is made of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Known = Literal["measured", "reported", "source"]
"""Run by us, but never on a GB10; seen there by somebody; read in a wheel, a program or its pages."""
State = Literal["runs", "installs", "partly", "fails"]
"""`installs`: it resolves and installs, and nobody is known to us who ran it there."""


class Package(NamedTuple):
    """`version`: for which the state holds."""

    name: str
    state: State
    version: str
    how: str
    known: Known
    source: str


class Flag(NamedTuple):
    """A launch flag or variable that unified memory makes necessary. `value`: as it is written."""

    program: str
    value: str
    why: str
    known: Known
    source: str


Came = Literal["came", "partly", "not yet"]


class Awaited(NamedTuple):
    """What github.com/natolambert/dgx-spark-setup expected on 2026-01-15, and what became of it."""

    what: str
    expected: str
    came: Came
    how: str
    source: str


TIMELINE = (
    Awaited(
        "PyTorch's official wheels for sm_121",
        "first quarter of 2026",
        "partly",
        "their code for sm_120 runs on 12.1, which is what is needed. The warning that it does not was to go with "
        "2.11; 2.13.0 still has one, in other words. PyPI's aarch64 wheels are CUDA 13 from 2.11 on",
        "pytorch/pytorch#172629, pull 166185; [facts 111](facts.md)",
    ),
    Awaited(
        "FlashAttention 4",
        "unknown",
        "not yet",
        "its kernels for B200 do not fit: a GB10 has no tensor memory. Dispatch for 12.x is an open pull request. "
        "SDPA does its work",
        "Dao-AILab/flash-attention#2634, #2376",
    ),
    Awaited(
        "vLLM by pip",
        "there, as nightly cu130 wheels",
        "came",
        "releases on PyPI are CUDA 13 from 0.20.0 on; no nightly and no pinned wheel any more",
        "[facts 111](facts.md); vllm-project/recipes#632",
    ),
    Awaited(
        "NVIDIA's containers",
        "there",
        "came",
        "nvcr.io/nvidia/vllm, sglang, pytorch and their like; what build.nvidia.com names may be older than what "
        "NVIDIA's playbooks do",
        "NVIDIA/dgx-spark-playbooks#68",
    ),
    Awaited(
        "vLLM from source, as a fallback",
        "25 to 35 minutes",
        "came",
        "still possible, and rarely needed: the measure `vllm_source`",
        "[vllm_source.md](vllm_source.md)",
    ),
)

PACKAGES = (
    Package(
        "DeepSpeed",
        "partly",
        ">= 0.18.3",
        "PyPI has its source only. Its operators are compiled when they are used, by an nvcc of "
        "torch's CUDA: 13.0 first in PATH",
        "source",
        "[facts 113](facts.md); deepspeedai/DeepSpeed#1077",
    ),
    Package(
        "Accelerate",
        "installs",
        "1.15.0",
        'PyPI. Not `device_map="auto"`: it sees too little free memory; `device_map={"": 0}`',
        "measured",
        "[stack.md](stack.md), resolved and installed",
    ),
    Package(
        "Transformers",
        "installs",
        "5.19.0",
        'PyPI. `attn_implementation="sdpa"`',
        "measured",
        "[facts 104](facts.md)",
    ),
    Package(
        "Triton",
        "installs",
        "3.7.1; 3.5.0 and older need another ptxas",
        "with torch. From 3.6 on its `ptxas-blackwell` knows sm_121a",
        "measured",
        "[facts 103, 118](facts.md)",
    ),
    Package(
        "bitsandbytes",
        "installs",
        "releases since December 2025",
        "PyPI, whose aarch64 builds then have compute capability 12.1; `spark-doctor VENV` looks",
        "source",
        "bitsandbytes-foundation/bitsandbytes#1829",
    ),
    Package(
        "xformers",
        "fails",
        "as of its report",
        'not at all: "no operator", (12, 1) is "too new". SDPA does its work',
        "reported",
        "facebookresearch/xformers#1395",
    ),
    Package(
        "flash-attn",
        "fails",
        "2.8.3",
        "not at all: its wheels are built for CUDA 12. SDPA; vLLM's own copy is fine",
        "reported",
        "Dao-AILab/flash-attention#1969",
    ),
    Package(
        "vLLM",
        "runs",
        ">= 0.20.0 for CUDA 13, >= 0.24 for its count of memory",
        "PyPI, in one resolution with torch, which it pins: the measures `stack`, `vllm_source`",
        "reported",
        "[facts 111](facts.md); vllm-project/recipes#632",
    ),
    Package(
        "SGLang",
        "runs",
        "0.5.9 and newer, not every model",
        "its cu130 image, or sgl-kernel from SGLang's cu130 index: PyPI's lacks sm_121",
        "reported",
        "mmcdermott/MEDS_EIC_AR#163; sgl-project/sglang#34872, #40286",
    ),
)

FLAGS = (
    Flag(
        "vLLM",
        "--gpu-memory-utilization 0.85",
        "its default of 0.92 does not start: the share is of the whole memory, the host's too. "
        "Alone 0.85 at most, 0.7 beside other work",
        "reported",
        "vllm-project/recipes#632",
    ),
    Flag(
        "vLLM",
        "--safetensors-load-strategy eager",
        "without mmap an 80B model loaded in 1.5 instead of 8.7 minutes, with more host memory while it did",
        "reported",
        "NVIDIA developer forum 349886",
    ),
    Flag(
        "vLLM",
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False, without --enable-flashinfer-autotune",
        "where the driver logs that it is out of memory while the engine starts",
        "reported",
        "NVIDIA/dgx-spark-playbooks#97",
    ),
    Flag(
        "SGLang",
        "--mem-fraction-static 0.70",
        "SGLang's pages say 0.85; who measured it on one Spark used 0.70, as 0.75 began to swap",
        "reported",
        "sgl-project/sglang#34872, #35121",
    ),
    Flag(
        "llama.cpp",
        "--no-mmap",
        "mmap is slow there: 22 instead of 224 seconds for one model, 22 instead of 90 for another",
        "reported",
        "ggml-org/llama.cpp#27742; NVIDIA developer forum 349886",
    ),
    Flag(
        "llama.cpp",
        "-ngl 99",
        "all layers on the GPU: it has no memory of its own that could be full (122 models, up to 91 GiB)",
        "reported",
        "AlexsJones/llmfit#872",
    ),
    Flag(
        "ComfyUI",
        "--reserve-vram 16",
        "large loads aborted without it: the driver refuses, and no process is ended",
        "reported",
        "Comfy-Org/ComfyUI#15285",
    ),
    Flag(
        "Ollama",
        "OLLAMA_LOAD_TIMEOUT=20m",
        "a model of 50 GB was not loaded in 10 minutes",
        "reported",
        "rwlove/home-ops#12457",
    ),
    Flag(
        "Ollama",
        "OLLAMA_MAX_LOADED_MODELS=1, OLLAMA_KEEP_ALIVE=5m",
        "each loaded model holds the host's memory; 5 minutes is the default, -1 is for ever",
        "source",
        "ollama/ollama, docs/faq.md; ollama/ollama#3090",
    ),
    Flag(
        "TRL",
        "vllm_gpu_memory_utilization=0.3",
        "vLLM runs in the trainer's process (colocate) and takes that share of the whole memory",
        "source",
        "TRL's page on vLLM",
    ),
    Flag(
        "TRL, open-instruct",
        "VLLM_ALLOW_INSECURE_SERIALIZATION=1",
        "vLLM's serialization fails on aarch64 without it",
        "reported",
        "huggingface/trl#3676",
    ),
    Flag(
        "Unsloth",
        "spark-run --drop-cache",
        "no flag is known to us: it takes what CUDA calls free, which leaves page cache out",
        "reported",
        "unslothai/unsloth#6757",
    ),
    Flag(
        "PyTorch (TRL, Unsloth, Axolotl, …)",
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
        "lengths that vary make it reserve up to 3.4 times what is in use, 1.24 times with it "
        "(on an H200). spark-run sets it",
        "measured",
        "[training.md](training.md); see vLLM above for where it is reported to do harm",
    ),
)
