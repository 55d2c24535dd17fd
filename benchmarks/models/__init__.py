"""One file per training step or workload, each runnable with `python -m`."""
