"""The machine: locks, programs, cores, temporary folders, logs."""
