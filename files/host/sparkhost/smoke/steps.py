"""One step, by name: `python steps.py NAME`. Prints one line of JSON behind MARK. Run by the stack's Python."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MARK = "SPARK-SMOKE "
CUDA_LIBRARY = re.compile(
    r"/lib(cudart|cublas|cudnn|cufft|curand|cusolver|cusparse|nvrtc|nvJitLink|nccl|cupti|cufile|nvshmem)[^/]*\.so[^/]*$"
)
EMPTY_KERNEL = ".version 8.8\n.target sm_121a\n.address_size 64\n.visible .entry empty() { ret; }\n"
DRIVER = re.compile(r"/libcuda\.so[^/]*$")


class Missing(Exception):
    """A package that the stack does not have."""


def package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise Missing(name) from error


def gpu() -> Any:
    """torch, with a GPU that it can use. Raises RuntimeError where there is none."""
    torch = package("torch")
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU that it can use")
    torch.manual_seed(0)
    return torch


def largest_difference(one: Any, other: Any) -> float:
    return float((one.float().cpu() - other.float().cpu()).abs().max())


def device() -> dict[str, Any]:
    torch = gpu()
    driver = Path("/proc/driver/nvidia/version")
    version = re.search(r"\b\d+\.\d+(\.\d+)?\b", driver.read_text()) if driver.is_file() else None
    return {
        "torch": torch.__version__,
        "built_for_cuda": torch.version.cuda,
        "driver": version[0] if version else "unknown",
        "memory": torch.cuda.get_device_properties(0).total_memory,
    }


def matmul_bf16() -> dict[str, Any]:
    """Against the same product in float32 on the CPU."""
    torch = gpu()
    one, other = (torch.randn(512, 512, dtype=torch.bfloat16) for _ in range(2))
    found = largest_difference(one.cuda() @ other.cuda(), one.float() @ other.float())
    return {"largest_difference": found, "ok": found < 1.0}  # sums of 512 products of about 1, 8 bits of mantissa


def sdpa(backend: str) -> dict[str, Any]:
    """One backend, forced, against the plain formula."""
    torch = gpu()
    attention = package("torch.nn.attention")
    query, key, value = (torch.randn(2, 4, 256, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    run = torch.nn.functional.scaled_dot_product_attention
    with attention.sdpa_kernel(getattr(attention.SDPBackend, backend)):
        found = run(query, key, value, is_causal=True)
    with attention.sdpa_kernel(attention.SDPBackend.MATH):
        wanted = run(query, key, value, is_causal=True)
    difference = largest_difference(found, wanted)
    return {"largest_difference": difference, "ok": difference < 0.05}


def triton_kernel() -> dict[str, Any]:
    torch = gpu()
    triton = package("triton")
    sys.path.insert(0, str(Path(__file__).parent))
    kernel = importlib.import_module("kernel")
    x, y = (torch.randn(10_000, device="cuda") for _ in range(2))
    out = torch.empty_like(x)
    kernel.add_scaled[(triton.cdiv(x.numel(), 1024),)](x, y, out, x.numel(), 3.0, BLOCK=1024)
    difference = largest_difference(out, x + 3.0 * y)
    return {"triton": triton.__version__, "largest_difference": difference, "ok": difference < 1e-4}


def ptxas() -> dict[str, Any]:
    """Whether what Triton assembles with for a GB10 knows sm_121a: by an empty kernel, on whatever GPU this is."""
    triton = package("triton")
    found = assembler(triton)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.ptx"
        source.write_text(EMPTY_KERNEL)
        words = [found, "--gpu-name=sm_121a", f"--output-file={folder}/empty.cubin", str(source)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    said = " ".join((done.stderr or done.stdout).split())
    return {"ptxas": found, "said": said or "nothing", "ok": done.returncode == 0}


def assembler(triton: Any) -> str:
    """The ptxas that Triton takes for a Blackwell GPU; since 3.6 it has one of its own for those."""
    if chosen := os.environ.get("TRITON_PTXAS_BLACKWELL_PATH") or os.environ.get("TRITON_PTXAS_PATH"):
        return chosen
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    blackwell = bundled / "ptxas-blackwell"
    return str(blackwell if blackwell.exists() else bundled / "ptxas")


def libraries() -> dict[str, Any]:
    """Which CUDA libraries this process has mapped: all of the stack, but for the driver's own."""
    torch = gpu()
    (torch.randn(64, 64, device="cuda") @ torch.randn(64, 64, device="cuda")).sum().item()
    paths = {line.split(None, 5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    found = sorted(path for path in paths if CUDA_LIBRARY.search(path) and not DRIVER.search(path))
    site = Path(torch.__file__).resolve().parents[1]
    foreign = outside(found, site)
    return {"mapped": len(found), "below": str(site), "foreign": foreign, "ok": bool(found) and not foreign}


def outside(paths: Iterable[str], site: Path) -> list[str]:
    """Those that are not below site-packages, where a stack's libraries are. A path's text alone does not tell."""
    return [path for path in paths if not Path(path).resolve().is_relative_to(site)]


def vllm_extension() -> dict[str, Any]:
    gpu()
    vllm = package("vllm")
    package("vllm._C")
    return {"vllm": vllm.__version__, "ok": True}


def vllm_generate() -> dict[str, Any]:
    """Some tokens of a model that is made here: a configuration, and weights by chance."""
    gpu()
    vllm = package("vllm")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        "vocab_size": 1024,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        model = vllm.LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=True,
            max_model_len=64,
            gpu_memory_utilization=0.1,
        )
        wanted = vllm.SamplingParams(max_tokens=8, ignore_eos=True, temperature=0.0, detokenize=False)
        (answer,) = model.generate([{"prompt_token_ids": [1, 5, 9]}], wanted)
        count = len(answer.outputs[0].token_ids)
    return {"tokens": count, "ok": count == 8}


STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "device": device,
    "matmul_bf16": matmul_bf16,
    "sdpa_cudnn": lambda: sdpa("CUDNN_ATTENTION"),
    "sdpa_flash": lambda: sdpa("FLASH_ATTENTION"),
    "triton_kernel": triton_kernel,
    "ptxas": ptxas,
    "libraries": libraries,
    "vllm_extension": vllm_extension,
    "vllm_generate": vllm_generate,
}


def main(name: str) -> int:
    """Exit code 0 with a line; whatever else goes wrong is an exception of its own."""
    try:
        told = {"ok": True, **STEPS[name]()}
        torch = package("torch")
        told["gpu"] = torch.cuda.get_device_name(0)
        told["capability"] = "{}.{}".format(*torch.cuda.get_device_capability(0))
    except Missing as missing:
        told = {"missing": str(missing)}
    print(f"\n{MARK}{json.dumps(told)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
