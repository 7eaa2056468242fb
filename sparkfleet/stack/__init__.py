"""The CUDA stack on the controller: its profiles and their locks, how they are made and checked, and the mirror."""
