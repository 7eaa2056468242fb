"""The fast links between hosts: which devices, which files, the change under guard, and its proof."""
