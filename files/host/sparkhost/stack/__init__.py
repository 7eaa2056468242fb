"""The measure `stack` on the host."""
