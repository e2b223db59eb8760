"""Benchmarks: `make bench` runs every `bench_*.py` here and prints what was measured beside what was asked."""
