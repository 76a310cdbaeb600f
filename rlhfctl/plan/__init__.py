"""Memory, time and disk space of a run, computed before it from the configuration alone."""
