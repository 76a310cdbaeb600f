"""Benchmarks, run with `python -m benchmarks.NAME` from the root of the repository.

Each prints a table, writes JSON that includes the machine, and runs on a CPU or a GPU.
"""
