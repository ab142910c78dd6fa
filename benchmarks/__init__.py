"""Benchmarks and their targets: `python -m benchmarks` or `pytest benchmarks`."""
