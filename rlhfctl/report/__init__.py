"""The page that shows a run: metrics, curves and samples, all read from the run folder."""
