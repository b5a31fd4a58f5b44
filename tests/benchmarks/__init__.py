"""Benchmarks: ``python -m tests.benchmarks``. What they measure is in README.md beside this."""
