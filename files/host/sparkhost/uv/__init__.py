"""The measure `uv` on the host."""
