"""The measure `training_slice` on the host: slices, caps, people, Docker."""
