"""Somebody's word that nobody deploys to this host for now: `sparkfleet lock`. ADR 11."""
