"""One command a benchmark: `python -m benchmarks.NAME`, from the root of the repository.

Each prints a table, writes JSON with the machine's name in it, and runs on a CPU as on a GPU.
"""
