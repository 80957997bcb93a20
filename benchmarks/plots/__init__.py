"""The figures as pictures: `python -m benchmarks plot RESULTS.json --to FOLDER`. They need matplotlib."""
