"""Rolling updates under steady load, counted: `python -m benchmarks rollout`."""
