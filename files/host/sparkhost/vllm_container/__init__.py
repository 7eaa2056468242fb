"""The measure `vllm_container` on the host."""
