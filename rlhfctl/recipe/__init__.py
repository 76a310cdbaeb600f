"""The recipe schema and its reader; nothing here imports torch."""
