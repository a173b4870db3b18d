"""Benchmarks. They are not tests and not part of the package."""
