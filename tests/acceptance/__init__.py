"""The long tail: every fault at every moment. `make acceptance`, before a release and when what it covers changes."""
