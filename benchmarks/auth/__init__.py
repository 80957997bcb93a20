"""What it costs to verify a token, and what a hostile one can cost: `python -m benchmarks auth`."""
