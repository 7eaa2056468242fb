"""The measure `swap` on the host."""
