"""Every figure in the README, as a command: ``python -m benchmarks.NAME`` prints one JSON line per measurement."""
