"""Proximal policy optimisation for language models, written out so that it reads as the algorithm.

It receives roles and plain numbers, so that a toy policy can drive it.
"""
