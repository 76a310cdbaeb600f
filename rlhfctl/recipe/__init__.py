"""What a recipe may contain and how one is read; nothing here imports torch."""
