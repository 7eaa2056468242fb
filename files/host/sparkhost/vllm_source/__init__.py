"""The measure `vllm_source` on the host."""
