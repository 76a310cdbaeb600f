"""Loads, quantises and adapts models, and gives every role its network."""
