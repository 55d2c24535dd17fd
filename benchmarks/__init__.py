"""Benchmarks, importable as bigfast.benchmarks from an installed package."""
