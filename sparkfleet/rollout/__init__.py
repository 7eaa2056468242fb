"""`sparkfleet rollout`: a deploy in batches, a canary first, each batch judged before the next is touched (ADR 12)."""
