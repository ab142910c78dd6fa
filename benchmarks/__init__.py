"""Measured figures, peers and targets: `python -m benchmarks`, or `pytest benchmarks`."""
