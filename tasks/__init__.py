"""The measures: one module each, `apply(settings)` and `remove(settings)`, in pyinfra operations."""
