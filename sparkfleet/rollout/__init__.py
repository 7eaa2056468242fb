"""Deploys in batches: a canary first, then the others, each batch judged before the next is touched."""
