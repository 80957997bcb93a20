"""What becomes of the cost of a request where there is more of something: `python -m benchmarks scale`."""
