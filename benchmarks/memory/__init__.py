"""Whether memory stays what it is, over many requests of many clients: `python -m benchmarks memory`."""
