"""Benchmarks side by side with Node: `python -m bench [NAME...]`, see `docs/performance.md`."""
