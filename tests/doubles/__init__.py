"""Doubles of what this project cannot have in tests; each one says what it stands for."""
