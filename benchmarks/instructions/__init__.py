"""A guard against regress: what a guarded request costs in instructions, held to a recorded figure.

`python -m benchmarks instructions` fails where it has grown; `--record` writes down the figures of this Python.
"""
