"""Builds that do not fit: CUDA 12 on a CUDA 13 host, torch without CUDA, extensions of another torch."""

from __future__ import annotations

from sparkhost.doctor.rules.rule import Rule

NO_FILE = r"[^\n]*cannot open shared object"
CU130 = "reinstall it as a cu130 build: torch >= 2.11 and vllm >= 0.20 from PyPI, in one resolution"

RULES = (
    Rule(
        "cudart-12",
        "broken",
        rf"libcudart[\w.-]*\.so\.12{NO_FILE}",
        "something was built for CUDA 12; a Spark has CUDA 13",
        "spark-doctor VENV names the file and its distribution; then " + CU130,
        "vllm-project/vllm#36099",
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory",
    ),
    Rule(
        "cuda-12-library",
        "broken",
        rf"lib(?:cublas|cublasLt|cudnn|cufft|curand|cusparse|cusolver|nvrtc|cupti|nvJitLink)[\w.-]*"
        rf"\.so\.(?:8|10|11|12){NO_FILE}",
        "something was built for CUDA 12, not only its runtime; a Spark has CUDA 13",
        "find its package in the traceback; then " + CU130,
        "sgl-project/sglang#18203, #16052; sgl-project/sglang-omni#620",
        "ImportError: libnvrtc.so.12: cannot open shared object file: No such file or directory",
        "ImportError: libnvrtc.so.13: cannot open shared object file: No such file or directory",
    ),
    Rule(
        "cuda-13-library",
        "broken",
        rf"lib(?:cudart|cublas|cublasLt|cusparse|cusolver|nvrtc|nvJitLink)[\w.-]*\.so\.13{NO_FILE}",
        "a CUDA 13 build runs beside a torch of CUDA 12, or beside none that brings CUDA's libraries",
        "install torch and what needs it in one resolution, both as cu130: spark-doctor VENV says which torch it is",
        "vllm-project/vllm#52300",
        "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory",
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
    ),
    Rule(
        "cudnn-missing",
        "broken",
        rf"libcudnn[\w.-]*\.so\.9{NO_FILE}|Unable to load any of \{{libcudnn",
        "torch is there without the nvidia-* packages that it needs",
        "uv pip install --reinstall torch, without --no-deps",
        "pytorch's own message where its nvidia-* packages are missing",
        "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory",
        "Loaded libcudnn.so.9 from the venv",
    ),
    Rule(
        "torch-cpu",
        "broken",
        rf"Torch not compiled with CUDA enabled|libtorch_cuda\.so{NO_FILE}|libc10_cuda\.so{NO_FILE}"
        r"|Failed to infer device type",
        "torch is PyPI's CPU build, or another package's pin has replaced the CUDA build by it",
        "spark-doctor VENV; install torch and vllm in one resolution: torch >= 2.11, or the cu130 index",
        "eugr/spark-vllm-docker#263, #264; vllm-project/vllm#28129, #23910",
        "ImportError: libtorch_cuda.so: cannot open shared object file: No such file or directory",
        "libtorch_cuda.so loaded",
    ),
    Rule(
        "torch-abi",
        "broken",
        r"undefined symbol: _ZN(?:K?3c10|2at|5torch)",
        "an extension was built against another torch than the one that is installed",
        "reinstall that package and torch in one resolution, or build it anew with --no-build-isolation",
        "eugr/spark-vllm-docker#141",
        "ImportError: vllm/_C.abi3.so: undefined symbol: _ZN3c1013MessageLoggerC1EPKciib",
        "ImportError: mylib.so: undefined symbol: my_function",
    ),
    Rule(
        "torchvision",
        "broken",
        r"operator torchvision::nms does not exist",
        "torchvision was built for another torch: it is left over from before torch was replaced",
        "reinstall torchvision together with torch, from the same index",
        "common after torch was replaced on aarch64",
        "RuntimeError: operator torchvision::nms does not exist",
        "calling torchvision::nms",
    ),
    Rule(
        "flash-attn",
        "broken",
        r"FlashAttention2? has been toggled on|No module named 'flash_attn|flash_attn[^\n]*undefined symbol",
        "flash_attention_2 is asked for, and the package flash-attn is missing or does not load; it is not needed",
        'uv pip uninstall flash-attn, and attn_implementation="sdpa"; with open-instruct --attn_implementation sdpa',
        "NVIDIA/Isaac-GR00T#474; transformers' own message",
        "ImportError: FlashAttention2 has been toggled on, but it cannot be used",
        "vllm_flash_attn is used",
    ),
    Rule(
        "bitsandbytes",
        "broken",
        r"libbitsandbytes\w*\.so|CUDA Setup failed despite (?:GPU|CUDA) being available"
        r"|Configured CUDA binary not found at",
        "bitsandbytes has no library for this CUDA and processor in it",
        "a release with aarch64 wheels and CUDA 13: uv pip install -U 'bitsandbytes>=0.48'",
        "bitsandbytes-foundation/bitsandbytes, its own message",
        "RuntimeError: Configured CUDA binary not found at /venv/bitsandbytes/libbitsandbytes_cuda130.so",
        "bitsandbytes 0.48.1 loaded",
    ),
    Rule(
        "no-aarch64-wheel",
        "broken",
        r"no wheels with a matching (?:platform|Python ABI) tag|is not a supported wheel on this platform",
        "that package has no wheel for aarch64 and this Python; a Spark's processor is an Arm",
        "leave it out on aarch64 (a marker: ; platform_machine != 'aarch64'), take another release, or build it",
        "uv's own message",
        "Because xformers has no wheels with a matching platform tag (e.g., `manylinux_2_39_aarch64`)",
        "Installed 12 wheels with a matching platform tag",
    ),
    Rule(
        "python-headers",
        "broken",
        r"Python\.h: No such file or directory",
        "Triton and vLLM compile small programs when they run, and need Python's headers",
        "sudo apt install python3.12-dev",
        "vllm-project/vllm, triton-lang/triton: the compiler's own message",
        "fatal error: Python.h: No such file or directory",
        "found Python.h in /usr/include/python3.12",
    ),
)
