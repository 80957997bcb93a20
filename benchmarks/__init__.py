"""What the guard costs, measured on the machine at hand: `python -m benchmarks`."""
