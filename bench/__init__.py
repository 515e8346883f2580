"""Benchmarks and evaluations. They print tables and are no tests."""
