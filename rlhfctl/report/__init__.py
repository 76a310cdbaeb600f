"""The page that shows a run: figures, curves and samples, all read from the run folder."""
