"""The measure `cuda_env` on the host."""
