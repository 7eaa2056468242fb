"""`sparkfleet link`: the picture of the links between hosts."""
