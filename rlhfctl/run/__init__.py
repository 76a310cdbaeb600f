"""The run folder: its paths, its manifest, its lock, its metrics; nothing here imports torch."""
