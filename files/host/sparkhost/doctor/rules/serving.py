"""vLLM and what trains or serves beside it."""

from __future__ import annotations

from sparkhost.doctor.rules.rule import Rule

UP = r"Application startup complete|Uvicorn running on"

RULES = (
    Rule(
        "vllm-free-memory",
        "broken",
        r"No available memory for the cache blocks|Available KV cache memory: -",
        "the weights fill vLLM's share, and nothing is left for its cache. Its advice, a higher utilization, takes a "
        "Spark's whole memory: hosts were reset after it",
        "a smaller or quantised model, --max-model-len and --max-num-seqs lower; only where spark-top shows room, "
        "a higher --gpu-memory-utilization in small steps",
        "eugr/spark-vllm-docker#388",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "Available KV cache memory: 12.3 GiB",
    ),
    Rule(
        "vllm-free-memory",
        "broken",
        r"Free memory on device[^\n]*less than desired GPU memory utilization",
        "vLLM asks CUDA what is free, which leaves out page cache; before 0.24 it miscounts unified memory as well. "
        "Or something else holds it: an engine that was left over (VLLM::EngineCore without a parent)",
        "spark-top says who holds it, spark-run clean ends what is left of yours; "
        "spark-run --drop-cache -- ..., and a lower --gpu-memory-utilization (0.7 at most)",
        "vllm-project/vllm#47266; Blackwellboy/model-serving-minefield, traps 119 and 123",
        "ValueError: Free memory on device cuda:0 (8.88/121.69 GiB) on startup is less than desired GPU memory "
        "utilization (0.85, 103.44 GiB).",
        "Free memory on device: 100 GiB",
    ),
    Rule(
        "vllm-context",
        "broken",
        r"To serve at least one request with the models's max seq len|larger than the available KV cache memory",
        "one sequence of the model's full length does not fit into vLLM's cache",
        "--max-model-len as small as the work allows; a quantised cache (--kv-cache-dtype fp8)",
        "vLLM's own message",
        "ValueError: To serve at least one request with the models's max seq len (131072), 16 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (9 GiB).",
        "GPU KV cache size: 211,376 tokens",
    ),
    Rule(
        "vllm-idle",
        "warning",
        r"Capturing CUDA graphs?[^\n]*\b0%|Capturing cudagraphs? for decoding",
        "if it goes no further, vLLM hangs while it captures CUDA graphs: reported on a GB10",
        "--enforce-eager (in open-instruct --vllm_enforce_eager)",
        "reported on a GB10",
        "Capturing CUDA graphs (decode, FULL):   0%|          | 0/35 [00:00<?, ?it/s]",
        "Capturing CUDA graphs (decode, FULL):   0%|          | 0/35\nINFO: Application startup complete.",
        unless=rf"Capturing CUDA graphs?[^\n]*100%|Graph capturing finished|{UP}",
    ),
    Rule(
        "vllm-idle-timeout",
        "broken",
        r"RPC call to sample_tokens timed out",
        "the engine stood still for longer than vLLM waits: memory was nearly out, or the GPU's clock was stuck low",
        "spark-top and spark-doctor without a target when it happens; a lower --gpu-memory-utilization",
        "eugr/spark-vllm-docker#321",
        "TimeoutError: RPC call to sample_tokens timed out.",
        "RPC call to sample_tokens took 0.1 s",
    ),
    Rule(
        "dispatched-to-cpu",
        "broken",
        r"modules are dispatched on the CPU or the disk",
        "transformers sees too little free GPU memory, as CUDA leaves out page cache, and would put layers elsewhere",
        'spark-run --drop-cache -- ..., and device_map={"": 0} instead of "auto"',
        "transformers' own message; docs/facts.md",
        "ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have enough GPU RAM",
        "modules are on cuda:0",
    ),
    Rule(
        "compress-statistics",
        "broken",
        r"unexpected keyword argument 'compress_statistics'|compress_statistics[^\n]*attribute",
        "transformers or peft and bitsandbytes are of releases that do not go together",
        "install transformers, peft and bitsandbytes in one resolution, each at its newest release",
        "NVIDIA/dgx-spark-playbooks#57",
        "TypeError: Params4bit.__new__() got an unexpected keyword argument 'compress_statistics'",
        "compress_statistics=True",
    ),
    Rule(
        "unsloth-fa2",
        "note",
        r"Your Flash Attention 2 installation seems to be broken",
        "harmless: Unsloth goes on with another attention, which is as fast on a GB10",
        "nothing to do, or uv pip uninstall flash-attn",
        "Unsloth's own message",
        "Unsloth: Your Flash Attention 2 installation seems to be broken. Using Xformers instead.",
        "Unsloth: Fast Qwen3 patching",
    ),
    Rule(
        "nccl-duplicate-gpu",
        "broken",
        r"Duplicate GPU detected",
        "two processes of one job use the same GPU; a Spark has one, and NCCL wants one process for each",
        "one process a host: torchrun --nproc-per-node 1; where two must share it, the gloo backend",
        "NCCL's own message",
        "ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device f01000",
        "NCCL INFO comm 0x1 rank 0 nranks 2",
    ),
    Rule(
        "scope-setting",
        "broken",
        r"Unknown assignment: OOMScoreAdjust",
        "systemd-run --scope takes no such setting",
        "spark-run -- COMMAND",
        "systemd-run(1); seen on systemd 252 and 257",
        "Unknown assignment: OOMScoreAdjust=500",
        "OOMScoreAdjust=500",
    ),
)
