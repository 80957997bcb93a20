"""Whole requests through a real server, bare, guarded and with others' stacks: `python -m benchmarks server`."""
