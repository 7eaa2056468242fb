"""Peak GPU memory of real training steps, beside which the estimator is held.

`python3 tests/bench/estimate_gpu.py OUT [SECONDS]` needs one NVIDIA GPU with PyTorch, transformers and peft. Nothing is
downloaded: weights are random, shapes are those of the named models. Two steps each, so that the optimizer's state is
there when the second one peaks. Prints and writes JSON: a row a run, sizes in bytes.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a script, where nothing is installed

from tests.bench.model_shapes import SHAPES

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEADLINE = time.monotonic() + float(sys.argv[2] if len(sys.argv) > 2 else 170)


def model_of(shape: str, dtype: torch.dtype, checkpointing: bool) -> Any:
    values = dict(SHAPES[shape])
    config = AutoConfig.for_model(values.pop("model_type"), **values, use_cache=False)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def log_probabilities(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Of whole sequences, as DPO trainers compute them: all logits, log-softmax, one gathered."""
    logits = model(input_ids=tokens).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2).sum(-1)


def measure(shape: str, method: str, batch: int, length: int, checkpointing: bool, accumulation: int) -> dict[str, Any]:
    """One configuration; the peak of its second optimizer step."""
    mixed = method == "sft-mixed"
    model = model_of(shape, torch.float32 if mixed else torch.bfloat16, checkpointing)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    reference = model_of(shape, torch.bfloat16, False).eval() if method == "dpo" else None
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules=LORA_TARGETS))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    static = torch.cuda.memory_allocated()
    rows = batch * 2 if method == "dpo" else batch
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        for _ in range(accumulation):
            tokens = torch.randint(0, SHAPES[shape]["vocab_size"], (rows, length), device="cuda")
            if reference is not None:
                with torch.no_grad():
                    expected = log_probabilities(reference, tokens)
                margin = log_probabilities(model, tokens) - expected
                loss = -functional.logsigmoid(margin[:batch] - margin[batch:]).mean()
            else:
                with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                    loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return {
        "parameters": parameters,
        "trained": sum(parameter.numel() for parameter in trained),
        "static": static,
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "context": total - free - torch.cuda.memory_reserved(),
    }


def resident() -> int:
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(words["VmRSS"].split()[0]) * 1024


def cases() -> list[tuple[str, str, int, int, bool, int]]:
    """The shape of the published table first and whole; then what tells the terms apart; then other shapes."""
    found = [("Qwen3-0.6B", "sft", b, s, c, 1) for s, c, b in product((1024, 2048), (True, False), (1, 2, 4, 8))]
    found += [("Qwen3-0.6B", method, b, 1024, True, 1) for method in ("sft-mixed", "dpo", "lora") for b in (1, 2, 4, 8)]
    found += [("Qwen3-0.6B", "sft", 2, 1024, True, 4), ("Qwen3-0.6B", "lora", 4, 1024, False, 1)]
    for shape in ("Qwen3-1.7B", "Llama-3.2-1B"):
        found += [(shape, "sft", b, 1024, c, 1) for c in (True, False) for b in (1, 4)]
        found += [(shape, "lora", 4, 1024, True, 1), (shape, "dpo", 2, 1024, True, 1)]
    return [*found, ("Qwen3-0.6B", "sft", 16, 1024, True, 1), ("Qwen3-0.6B", "sft", 2, 4096, True, 1)]


def main() -> None:
    rows = []
    for case in cases():
        if time.monotonic() > DEADLINE:
            print("out of time", file=sys.stderr)
            break
        shape, method, batch, length, checkpointing, accumulation = case
        row: dict[str, Any] = {
            "shape": shape, "method": method, "batch": batch, "length": length,
            "checkpointing": checkpointing, "accumulation": accumulation,
        }  # fmt: skip
        try:
            row |= measure(*case)
        except torch.cuda.OutOfMemoryError:
            row["error"] = "out of memory"
        gc.collect()
        torch.cuda.empty_cache()
        row["resident"] = resident()
        rows.append(row)
        print(json.dumps(row), flush=True)
    document = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": __import__("transformers").__version__,
        "peft": __import__("peft").__version__,
        "rows": rows,
    }
    Path(sys.argv[1]).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
