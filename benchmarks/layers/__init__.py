"""What each layer, and the whole guard, adds to one request: `python -m benchmarks layers`."""
