"""Reports of a run: thin writers, which judge nothing. Whatever hosts said is made visible by the writer itself."""
