"""What all measures rest on: resources, files, units, the kernel's and PID 1's answers, bounds."""
