"""Checks of a machine, and of what a recipe needs of it."""
