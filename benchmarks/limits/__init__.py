"""Limits, measured with a real server and beside other limiters: `python -m benchmarks limits`."""
