"""One file per op, each with `cases()`."""
