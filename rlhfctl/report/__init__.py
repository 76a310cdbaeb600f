"""Reports of runs: metrics, curves and samples, read from the run folder."""
